#!/usr/bin/env bash
# The Java SDK (com.uid2:uid2-client) against the `sandbox_operator` example, which must have been built.
set -euo pipefail
cd "$(dirname "$0")"
target=$(cd ../../.. && echo "${CARGO_TARGET_DIR:-$PWD/target}")
mkdir -p "$target/interop"
classpath=$target/interop/java.classpath
mvn -q -f pom.xml dependency:build-classpath -Dmdep.outputFile="$classpath"

coproc OPERATOR { PORT=0 exec "$target/debug/examples/sandbox_operator"; }
trap 'kill "$OPERATOR_PID"' EXIT
for _ in 1 2 3; do read -r line <&"${OPERATOR[0]}"; export "${line?}"; done
java -cp "$(cat "$classpath")" JavaSdk.java
