#!/bin/sh
# Asks a service by the direct channel: direct.sh CONTROL PROJECT SERVICE TOKEN KEY PICTURE. Needs curl and sed.
set -eu

control=$1 project=$2 service=$3 token=$4 key=$5 picture=$6

# The first endpoint: schema, ip and port.
address=$(curl -fsS -H "X-Auth-Token: $token" \
  "$control/v1/$project/services/$service/predict/endpoints?type=host_endpoints" |
  sed -n 's/.*"endpoints":\[{[^}]*"schema":"\([^"]*\)","ip":"\([^"]*\)","port":\([0-9]*\).*/\1:\/\/\2:\3/p')

curl -fsS -H "X-Sluice-Direct-Key: $key" -F "images=@$picture;type=image/png" "$address/"
