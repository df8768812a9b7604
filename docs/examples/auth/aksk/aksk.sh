#!/bin/sh
# Predict with an access key: "sluice sign" makes the headers, curl sends them. The secret key is
# taken from $SLUICE_SECRET_KEY, the access key from $SLUICE_ACCESS_KEY.
set -eu

type=${SLUICE_CONTENT_TYPE:-application/json}
url=$SLUICE_EDGE/v1/infers/$SLUICE_SERVICE${SLUICE_PATH:-}

sluice sign --request POST --header "Content-Type: $type" --body "$SLUICE_INPUT" "$url" |
	curl -fsS ${SLUICE_CA:+--cacert "$SLUICE_CA"} --path-as-is -H @- -H "Content-Type: $type" \
		--data-binary "@$SLUICE_INPUT" "$url"
