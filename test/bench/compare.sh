#!/bin/sh
# Compares the Go benchmarks of this tree with those of another revision, by benchstat.
# usage: compare.sh BASE BENCH BENCHTIME COUNT PKG
set -eu

base=$1 bench=$2 time=$3 count=$4 pkg=$5
go=${GO:-go}
out=bin/bench-compare
old=$out/tree

git rev-parse --verify --quiet "$base^{commit}" >/dev/null || { echo "bench-compare: no revision $base; give BASE=REVISION" >&2; exit 2; }
mkdir -p "$out"
trap 'git worktree remove --force "$old" >/dev/null 2>&1 || true' EXIT
git worktree remove --force "$old" >/dev/null 2>&1 || true
git worktree add --quiet --detach "$old" "$base"

# What set-up fetched serves both trees.
export ONNXRUNTIME_LIB="${ONNXRUNTIME_LIB:-$(ls "$PWD"/third_party/onnxruntime/lib/libonnxruntime.so* 2>/dev/null | head -n 1)}"

: >"$out/old.txt"
: >"$out/new.txt"
i=0
while [ "$i" -lt "$count" ]; do # in turn, so that what else happens on the machine meets both
	(cd "$old" && $go test -run '^$' -bench "$bench" -benchtime "$time" -benchmem $pkg) >>"$out/old.txt" || true
	$go test -run '^$' -bench "$bench" -benchtime "$time" -benchmem $pkg >>"$out/new.txt"
	i=$((i + 1))
done

$go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da "old=$out/old.txt" "new=$out/new.txt"
