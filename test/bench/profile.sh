#!/bin/sh
# Writes CPU and allocation profiles of the stages that a request goes through, and their heaviest functions.
# usage: profile.sh BENCHTIME
set -eu

time=$1
go=${GO:-go}
out=bin/profiles
mkdir -p "$out"

for stage in gateway/edge gateway auth router/pool gateway/limit link runtime/codec/openinference runtime/serve runtime/batch loadtest/request; do
	grep -qs '^func Benchmark' "$stage"/*_test.go || continue
	name=$(echo "$stage" | tr / -)
	echo "== $stage"
	$go test -run '^$' -bench . -benchtime "$time" -benchmem -o "$out/$name.test" \
		-cpuprofile "$out/$name.cpu" -memprofile "$out/$name.mem" "./$stage" | grep '^Benchmark' || true
	$go tool pprof -top -nodecount 8 "$out/$name.test" "$out/$name.cpu" 2>/dev/null | tail -n +5
done

echo "look closer with: go tool pprof -http :0 $out/STAGE.test $out/STAGE.cpu"
