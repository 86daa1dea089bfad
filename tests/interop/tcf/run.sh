#!/usr/bin/env bash
# Thousands of TC strings from IAB's own encoder (npm @iabtcf/core). The example `consent` prints the reader's verdict
# on each, which must be that of IAB's own decoder. Build the example first: cargo build --example consent
set -euo pipefail
cd "$(dirname "$0")"
target=$(cd ../../.. && echo "${CARGO_TARGET_DIR:-$PWD/target}")
scratch=$target/interop/tcf
mkdir -p "$scratch"
cp package.json package-lock.json strings.mjs "$scratch"
npm ci --prefix "$scratch" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
node "$scratch/strings.mjs" 4000 "${1:-1}" >"$scratch/strings.tsv"
cut -f2 "$scratch/strings.tsv" | "$target/debug/examples/consent" - | paste - "$scratch/strings.tsv" >"$scratch/verdicts.tsv"
awk -F '\t' '$1 != $2 { print "FAILED: " $1 ", IAB says " $2 ": " $3; failed++ } END { print NR - failed " passed, " failed + 0 " failed"; exit (failed > 0 || NR < 3900) }' \
    "$scratch/verdicts.tsv"
