#!/usr/bin/env bash
# Fuzzes each target, or the named ones, for SECONDS each: bash fuzz/run.sh SECONDS [TARGET...]
# The corpus grows in fuzz/corpus. Failing inputs are in fuzz/artifacts; the output shows how to run one again.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1
shift
[ $# -gt 0 ] || set -- cookie_header sealed answer dii set_cookie tcf command form

command -v cargo-fuzz >/dev/null || {
    echo "installing cargo-fuzz"
    cargo install --locked --quiet cargo-fuzz --version 0.13.2
}
command -v c++ >/dev/null || {
    echo "installing g++"
    apt-get update -qq && apt-get install -qq -y --no-install-recommends g++ >/dev/null
}

python3 fuzz/seeds.py fuzz/target/seeds

# No sanitizer: this project has no unsafe code, and the stable compiler suffices without one.
cargo fuzz build --sanitizer none
for target in "$@"; do
    echo "fuzzing $target for $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/target/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -print_final_stats=1 -verbosity=0 2>&1 |
        grep -v "^INFO\|^WARNING: Failed to find function\|# Uses\|###"
done
