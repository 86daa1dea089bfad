#!/usr/bin/env bash
# Tests `euid-sidecar sandbox` with the Java SDK (com.uid2:uid2-client). Build euid-sidecar first.
set -euo pipefail
cd "$(dirname "$0")"
target=$(cd ../../.. && echo "${CARGO_TARGET_DIR:-$PWD/target}")
mkdir -p "$target/interop"
classpath=$target/interop/java.classpath
mvn -q -f pom.xml dependency:build-classpath -Dmdep.outputFile="$classpath"
java -cp "$(cat "$classpath")" JavaSdk.java "$target/debug/euid-sidecar"
