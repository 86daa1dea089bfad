#!/usr/bin/env bash
# Tests of the publisher example in a real browser, also with Prebid and the JavaScript SDK. Pictures of each state
# go to $BROWSER_SCREENSHOTS (target/browser).
set -euo pipefail
cd "$(dirname "$0")/../.."

for command in chromium npm openssl; do
    command -v "$command" >/dev/null || { echo "$command is not installed" >&2; exit 1; }
done
node=$(node -p 'process.versions.node.split(".")[0]')
[ "$node" -ge 20 ] || { echo "playwright-core needs node 20, this is node $node" >&2; exit 1; }
echo "installing playwright-core, prebid.js and @unified-id/euid-sdk from npm"
npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel=error

cargo build --quiet --locked --example publisher
cargo build --quiet --locked --package euid-sidecar
# The timeout is longer than a run takes. It also ends the processes that a run has started.
timeout 300 node --test-reporter=spec tests/browser/visit.mjs
timeout 300 node --test-reporter=spec tests/browser/store.mjs
timeout 300 node --test-reporter=spec tests/browser/scripts.mjs
