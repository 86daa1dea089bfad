#!/usr/bin/env bash
# Tests the executable as a process, its clients in real web servers, its API as its document describes it, and its proxy
# in front of servers.
# It needs php, node, npm, nginx and redis-server. The argument is a Python that has schemathesis: run.sh PYTHON
set -euo pipefail
python=$(realpath -s "$1")
cd "$(dirname "$0")/../../.."
target=${CARGO_TARGET_DIR:-$PWD/target}

cargo build --quiet --locked --package euid-sidecar
echo "installing express from npm"
mkdir -p "$target/sidecar"
cp crates/euid-sidecar/tests/sites/package*.json "$target/sidecar"
npm ci --prefix "$target/sidecar" --ignore-scripts --no-audit --no-fund --loglevel=error
# The timeout is longer than a run takes.
NODE_MODULES=$target/sidecar/node_modules SCHEMATHESIS=$(dirname "$python")/schemathesis \
    timeout 300 python3 crates/euid-sidecar/tests/process.py
timeout 300 python3 crates/euid-sidecar/tests/proxy.py
