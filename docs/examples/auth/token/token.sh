#!/bin/sh
# Predict with a token: get one by password, then send it with each request.
set -eu

type=${SLUICE_CONTENT_TYPE:-application/json}

# The body comes from standard input, so that the password is in no argument list.
token=$(curl -fsS ${SLUICE_CA:+--cacert "$SLUICE_CA"} -D - -o /dev/null \
	-H 'Content-Type: application/json' --data @- "$SLUICE_CONTROL/v3/auth/tokens" <<EOF | tr -d '\r' | awk 'tolower($1) == "x-subject-token:" { print $2 }'
{"auth": {
  "identity": {"methods": ["password"], "password": {"user": {
    "name": "$SLUICE_USER", "password": "$SLUICE_PASSWORD", "domain": {"name": "$SLUICE_DOMAIN"}}}},
  "scope": {"project": {"id": "$SLUICE_PROJECT"}}}}
EOF
)

curl -fsS ${SLUICE_CA:+--cacert "$SLUICE_CA"} -H "X-Auth-Token: $token" -H "Content-Type: $type" \
	--data-binary "@$SLUICE_INPUT" "$SLUICE_EDGE/v1/infers/$SLUICE_SERVICE${SLUICE_PATH:-}"
