# Sets EDGE, EDGE_TLS, CONTROL, PROJECT, SERVICE and TOKEN for a local sluice. Source it:
#   . scripts/quickstart-env.sh [DATA_DIR]
# It needs curl and nothing else; the values come from DATA_DIR/endpoints.json and DATA_DIR/bootstrap.json.

_sluice_data=${1:-${SLUICE_DATA:-data}}

# One string member of a JSON file that holds one flat object.
_sluice_get() { sed -n 's/.*"'"$2"'" *: *"\([^"]*\)".*/\1/p' "$_sluice_data/$1"; }

EDGE=$(_sluice_get endpoints.json edge_http)
EDGE_TLS=$(_sluice_get endpoints.json edge_https)
CONTROL=$(_sluice_get endpoints.json control)
PROJECT=$(_sluice_get bootstrap.json project_id)

TOKEN=$(curl -s -D - -o /dev/null -X POST "$CONTROL/v3/auth/tokens" -H 'Content-Type: application/json' -d '{"auth":{
  "identity":{"methods":["password"],"password":{"user":{"name":"'"$(_sluice_get bootstrap.json user)"'",
  "password":"'"$(_sluice_get bootstrap.json password)"'","domain":{"name":"'"$(_sluice_get bootstrap.json domain)"'"}}}},
  "scope":{"project":{"id":"'"$PROJECT"'"}}}}' | tr -d '\r' | sed -n 's/^[Xx]-[Ss]ubject-[Tt]oken: //p')

SERVICE=$(curl -s "$CONTROL/v1/$PROJECT/services?service_name=digits" -H "X-Auth-Token: $TOKEN" |
  sed -n 's/.*"service_id" *: *"\([^"]*\)".*/\1/p')

export EDGE EDGE_TLS CONTROL PROJECT SERVICE TOKEN
[ -n "$TOKEN" ] && [ -n "$SERVICE" ] || echo "sluice is not ready: is it running with $_sluice_data as its data directory?" >&2
