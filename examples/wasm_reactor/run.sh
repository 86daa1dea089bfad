#!/usr/bin/env bash
# Builds the reactor and visits a site on it, with the sandbox as its operator. Needs Node 20 or newer, and no packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

node=$(node -p 'process.versions.node.split(".")[0]')
[ "$node" -ge 20 ] || { echo "node:wasi is as this example needs it from Node 20 on, this is $node" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-$PWD/target}
[ -d "$(rustc --print target-libdir --target wasm32-wasip1)" ] || rustup target add wasm32-wasip1
cargo build --quiet --locked --target wasm32-wasip1 --target-dir "$target/wasm" \
    --manifest-path examples/wasm_reactor/Cargo.toml
cargo build --quiet --locked --package euid-sidecar

# The operator prints its address and its credentials as variables, then serves until this script ends it.
unset EUID_CLIENT_SECRET
exec 3< <(PORT=0 exec "$target/debug/euid-sidecar" sandbox)
operator=$!
trap 'kill "$operator" 2>/dev/null || true' EXIT
while read -r -u 3 variable; do
    export "${variable?}"
    [ -z "${EUID_CLIENT_SECRET:-}" ] || break
done
: "${EUID_CLIENT_SECRET:?the operator did not start}"
export REACTOR=$target/wasm/wasm32-wasip1/debug/euid_wasm_reactor.wasm

# A limit far above the usual duration.
timeout 60 node --no-warnings --test-reporter=spec examples/wasm_reactor/visit.mjs
