#!/bin/sh
# Predict as an app, in each of the three ways: signed with key and secret, by code, by key alone.
# The last two need HTTPS.
set -eu

type=${SLUICE_CONTENT_TYPE:-application/json}
url=$SLUICE_EDGE/v1/infers/$SLUICE_SERVICE${SLUICE_PATH:-}

predict() {
	curl -fsS ${SLUICE_CA:+--cacert "$SLUICE_CA"} --path-as-is -H @- -H "Content-Type: $type" \
		--data-binary "@$SLUICE_INPUT" "$url"
}

SLUICE_SECRET_KEY=$SLUICE_APP_SECRET sluice sign --access-key "$SLUICE_APP_KEY" \
	--request POST --header "Content-Type: $type" --body "$SLUICE_INPUT" "$url" | predict

echo "X-Apig-AppCode: $SLUICE_APP_CODE" | predict

echo "apikey: $SLUICE_APP_KEY" | predict
