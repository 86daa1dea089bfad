#!/usr/bin/env bash
# Tests the sample against the publisher example. Build the example first.
set -euo pipefail
cd "$(dirname "$0")"
target=$(cd ../../.. && echo "${CARGO_TARGET_DIR:-$PWD/target}")
mkdir -p "$target/clients/okhttp"
classpath=$target/clients/okhttp.classpath
mvn -q -f pom.xml dependency:build-classpath -Dmdep.outputFile="$classpath"
javac -Xlint:all -Werror -cp "$(cat "$classpath")" -d "$target/clients/okhttp" ./*.java
java -cp "$target/clients/okhttp:$(cat "$classpath")" OkHttpTest "$target/debug/examples/publisher"
