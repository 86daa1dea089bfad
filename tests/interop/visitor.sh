#!/usr/bin/env bash
# Tests of the examples with curl and a cookie jar, real processes and real sockets.
# If PYTHON is set to a Python that has the package cryptography, it opens the cookies of the publisher.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --quiet --examples
examples=${CARGO_TARGET_DIR:-target}/debug/examples
scratch=$(mktemp -d)
jar=$scratch/jar
passed=0
started=()
finish() {
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
is() { # is NAME ACTUAL EXPECTED
    [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
    passed=$((passed + 1))
}
start() { # start NAME PATTERN COMMAND...: runs the command, waits for a line that matches, sets $process and $line
    local log=$scratch/$1.log pattern=$2
    shift 2
    "$@" >"$log" 2>"$log.err" &
    process=$!
    started+=("$process")
    for _ in $(seq 200); do
        line=$(grep -m1 -oE "$pattern" "$log" || true)
        [ -n "$line" ] && return
        kill -0 "$process" 2>/dev/null || fail "$* ended: $(cat "$log.err")"
        sleep 0.05
    done
    fail "$* did not start"
}
visit() { curl -s --max-time 10 -b "$jar" -c "$jar" -D "$scratch/head" -o "$scratch/body" -w '%{http_code}' "$@"; }
identity() { is "status of a page" "$(visit "$site/api/identity")" 200; }
state() { sed -E 's/.*"state":"([a-z_]+)".*/\1/' "$scratch/body"; }
token() { sed -E 's/.*"advertising_token":(null|"([^"]*)").*/\2/' "$scratch/body"; }
# From the last response: the attributes of a cookie without its Max-Age, and the number of cookies of the layer.
attributes() { tr -d '\r' <"$scratch/head" | sed -nE "s/^set-cookie: $1=[^;]*; (.*)/\1/Ip" | sed -E 's/Max-Age=[0-9]+//'; }
cookies_set() { grep -ciE '^set-cookie: __Host-euid' "$scratch/head" || true; }
login() { is "status of a login as $2" "$(visit --data-urlencode "$1=$2" "$site/login")" 303; }
advance() { is "status of advance" "$(visit -d "seconds=$1" "$site/sandbox/advance")" 303; }
key() { "$examples/keygen" | sed -n 's/EUID_COOKIE_KEYS=//p'; }
value() { grep -P "$1\t" "$jar" | cut -f7; }
with_cookies() { curl -s --max-time 10 -o "$scratch/body" -D "$scratch/head" -w '%{http_code}' -b "$1" "$site/api/identity"; }

echo "-- the site on its embedded sandbox"
site_key=$(key)
RUST_LOG=tower_euid=debug EUID_COOKIE_KEYS=$site_key PORT=0 start site 'http://127.0.0.1:[0-9]+' "$examples/publisher"
# The first address is the operator's. The line of the site begins with its name.
for _ in $(seq 100); do site=$(sed -nE 's/^site: +(http:.*)\/$/\1/p' "$scratch/site.log"); [ -n "$site" ] && break; sleep 0.05; done
[ -n "$site" ] || fail "the site has printed no address"

is "health" "$(visit "$site/health")" 200
identity; is "state before any login" "$(state)" absent
is "cookies set without a login" "$(cookies_set)" 0

login email user@example.com
set_identity=$(attributes __Host-euid) set_anchor=$(attributes __Host-euid-login)
is "attributes of the identity" "$set_identity" "HttpOnly; SameSite=Lax; Secure; Path=/; "
identity; is "state after login" "$(state)" active
first=$(token); is "length of the token" "${#first}" 219
is "cookies set by a page with a fresh cookie" "$(cookies_set)" 0

advance 900
identity; second=$(token)
is "cookies set by the page that refreshes" "$(cookies_set)" 1
is "state after the refresh" "$(state)" active
[ "$first" != "$second" ] || fail "the token is the old one"

login email refresh-optout@example.com
identity; is "state before the opt-out shows" "$(state)" active
advance 900
for page in 1 2 3; do identity; is "state on page $page after the opt-out" "$(state)" opted_out; is "token" "$(token)" ""; done
login email optout@example.com
identity; is "state after a login of a person who opted out" "$(state)" opted_out

login phone +12345678901
identity; is "state after a login of another person" "$(state)" active
before=$(value __Host-euid)
is "status of the logout" "$(visit -X POST "$site/logout")" 303
is "attributes of the identity when cleared" "$(attributes __Host-euid)" "$set_identity"
is "attributes of the anchor when cleared" "$(attributes __Host-euid-login)" "$set_anchor"
identity; is "state after the logout" "$(state)" absent
is "status with the old identity put back" "$(with_cookies "__Host-euid=$before")" 200
is "state with the old identity put back" "$(state)" absent

echo "-- a refresh that is answered after the logout"
login email user@example.com
advance 900
cp "$jar" "$scratch/before"
is "status of slowing the operator down" "$(visit -d operator=slow "$site/sandbox/operator")" 303
is "status of the page that begins the refresh" "$(with_cookies "$scratch/before")" 200
is "cookies set before the operator answers" "$(cookies_set)" 0
is "status of the logout before the answer" "$(visit -X POST "$site/logout")" 303
# Unlike a browser, curl writes a removed identity back into its jar, because it reads the file again before it writes.
# Only the anchor counts.
is "anchors left by the logout" "$(grep -c __Host-euid-login "$jar" || true)" 0
# A request with the cookies from before the logout gets the late answer.
for _ in $(seq 100); do
    cp "$scratch/before" "$scratch/late"
    curl -s --max-time 10 -b "$scratch/late" -c "$scratch/late" -D "$scratch/head" -o "$scratch/body" "$site/api/identity"
    [ "$(cookies_set)" = 0 ] || break
    sleep 0.1
done
is "cookies set by the late answer" "$(cookies_set)" 1
sed -i '/__Host-euid\t/d' "$jar"
grep -P '__Host-euid\t' "$scratch/late" >>"$jar"
is "cookies in the jar after the late answer" "$(grep -o '__Host-euid[-a-z]*' "$jar")" __Host-euid
[ "$(grep -P '__Host-euid\t' "$jar")" != "$(grep -P '__Host-euid\t' "$scratch/before")" ] || fail "the late identity is the old one"
identity; is "state after the late answer" "$(state)" absent
is "the late identity is cleared" "$(tr -d '\r' <"$scratch/head" | grep -ci '^set-cookie: __Host-euid=;')" 1
is "status of speeding the operator up" "$(visit -d operator=up "$site/sandbox/operator")" 303

echo "-- the site's cookies, opened by another implementation"
opened() { "$PYTHON" tests/interop/cookie_format.py "$site_key" "$1" "$(value "$1")" >"$scratch/opened"; }
member() { sed -nE 's/^ "'"$1"'": "?([^",]*)"?,?$/\1/p' "$scratch/opened"; }
if [ -n "${PYTHON:-}" ]; then
    login email user@example.com
    for since in login refresh; do
        identity; opened __Host-euid
        is "token in the cookie since the $since" "$(member advertising_token)" "$(token)"
        is "lineage in the cookie since the $since" "$(member lineage)" "$(value __Host-euid-login)"
        advance 900
    done
    login email refresh-optout@example.com
    advance 900
    identity; opened __Host-euid-optout
    is "lineage in the record of an opt-out" "$(member lineage)" "$(value __Host-euid-login)"
    is "length of the time in the record" "$(member until | tr -d '\n' | wc -c)" 13
else
    echo "skipped: PYTHON is not set"
fi

echo "-- invalid cookies"
login email user@example.com
identity_value=$(value __Host-euid) anchor_value=$(value __Host-euid-login)
middle=${identity_value:300:1}; [ "$middle" = A ] && other=B || other=A
for bad in "${identity_value:0:300}$other${identity_value:301}" "${identity_value:0:500}" "${identity_value%?}" \
    "$(head -c 3750 /dev/zero | base64 -w0 | tr = A)" "$anchor_value" ""; do
    is "status of a page with a bad cookie" "$(with_cookies "__Host-euid=$bad; __Host-euid-login=$anchor_value")" 200
    is "state with a bad cookie" "$(state)" absent
done
is "the log with RUST_LOG has the reason" "$(grep -q forged "$scratch/site.log.err" && echo yes)" yes
is "status with the names swapped" "$(with_cookies "__Host-euid=$anchor_value; __Host-euid-login=$identity_value")" 200
is "state with the names swapped" "$(state)" absent
with_cookies "a=b; __Host-euid-login=$anchor_value; __Host-euid=$identity_value; c=d" >/dev/null
is "state with the valid cookies among others" "$(state)" active

echo "-- invalid input"
is "status for no address" "$(visit -d "" "$site/login")" 400
is "status for an invalid address" "$(visit -d email=not-an-address "$site/login")" 400
is "status for an invalid number" "$(visit -d phone=12345 "$site/login")" 400
identity; is "state after failed logins" "$(state)" absent
is "status for another site's name" "$(visit -H 'Host: evil.example' "$site/api/identity")" 421

echo "-- the site with an operator that stops and starts again"
EUID_SANDBOX_REFRESH_FROM=1 EUID_SANDBOX_IDENTITY_EXPIRES=6 EUID_SANDBOX_REFRESH_EXPIRES=600 PORT=0 \
    start operator 'EUID_CLIENT_SECRET=.*' "$examples/sandbox_operator"
operator=$process
export $(grep -h '^EUID_' "$scratch/operator.log")
if EUID_API_KEY='' "$examples/publisher" 2>"$scratch/refused"; then fail "started with only some of the variables"; fi
is "lines that name the missing variable" "$(grep -c 'not set: EUID_API_KEY' "$scratch/refused")" 1
PORT=0 start site2 'site: +http://127.0.0.1:[0-9]+' "$examples/publisher"
site=http${line#*http}
rm -f "$jar"
login email user@example.com
identity; is "state after login" "$(state)" active; first=$(token)
sleep 1.2
kill "$operator"; wait "$operator" 2>/dev/null || true
identity; is "state while the operator is down" "$(state)" active
is "token while the operator is down" "$(token)" "$first"
is "status of a login while the operator is down" "$(curl -s -o /dev/null -w '%{http_code}' -d email=user@example.com "$site/login")" 503
sleep 4.5
identity; is "state after the token has expired" "$(state)" unavailable
is "cookies set after the token has expired" "$(cookies_set)" 0
EUID_SANDBOX_REFRESH_FROM=1 EUID_SANDBOX_IDENTITY_EXPIRES=600 EUID_SANDBOX_REFRESH_EXPIRES=600 \
    PORT=${EUID_OPERATOR_URL##*:} start operator2 'EUID_CLIENT_SECRET=.*' "$examples/sandbox_operator"
operator=$process
# After two failures the layer backs off for at most 10 s.
for _ in $(seq 60); do identity; [ "$(state)" = active ] && break; sleep 0.25; done
is "state after the operator has started again" "$(state)" active
[ "$(token)" != "$first" ] || fail "the token is the old one"

echo "-- the layer on plain hyper"
node() { EUID_COOKIE_KEYS=$2 PORT=0 start "$1" 'http://127.0.0.1:[0-9]+' "$examples/hyper_service"; } # node NAME KEYS
node hyper "$(key)"; hyper=$line
rm -f "$jar"
is "page before login" "$(curl -s -b "$jar" -c "$jar" "$hyper/")" absent
is "login" "$(curl -s -b "$jar" -c "$jar" -d user@example.com "$hyper/login")" "logged in"
length=$(curl -s -b "$jar" -c "$jar" "$hyper/" | tr -d '\n' | wc -c); is "length of the token" "$length" 219
is "status of a login with an invalid address" "$(curl -s -o /dev/null -w '%{http_code}' -b "$jar" -c "$jar" -d user.example.com "$hyper/login")" 400
is "page after the failed login" "$(curl -s -b "$jar" -c "$jar" "$hyper/")" absent
is "login" "$(curl -s -b "$jar" -c "$jar" -d user@example.com "$hyper/login")" "logged in"
is "logout" "$(curl -s -b "$jar" -c "$jar" -X POST "$hyper/logout")" "logged out"
is "page after the logout" "$(curl -s -b "$jar" -c "$jar" "$hyper/")" absent

echo "-- cookies of one process in other processes"
old=$(key) new=$(key)
node one "$old"; one=$line
node two "$old"; two=$line
node both "$old,$new"; both=$line
node new_first "$new,$old"; new_first=$line
node only_new "$new"; only_new=$line
at() { curl -s --max-time 10 -b "$jar" -c "$jar" "${@:2}" "$1" | tr -d '\n'; }
page() { at "$1/" | sed -E 's/^.{219}$/a token/'; }
rm -f "$jar"
is "login at one process" "$(at "$one/login" -d user@example.com)" "logged in"
for other in "$two" "$both" "$new_first" "$one"; do is "page of a process that has the key" "$(page "$other")" "a token"; done
before=$(value __Host-euid)
is "page of a process that does not have the key" "$(page "$only_new")" absent
is "the cookie after that page" "$(value __Host-euid)" "$before"
is "second page of the first process" "$(page "$one")" "a token"
is "login at the process that seals under the new key" "$(at "$new_first/login" -d user@example.com)" "logged in"
is "page of the process that has only the new key" "$(page "$only_new")" "a token"
is "page of a process that does not have the new key" "$(page "$two")" absent
is "logout at that process" "$(at "$two/logout" -X POST)" "logged out"
is "page after the logout" "$(page "$new_first")" absent

echo "-- the example check_operator"
check() { # check NAME [ARGUMENT]: sets $status; the output is in $scratch/NAME
    status=0
    "$examples/check_operator" "${@:2}" >"$scratch/$1" 2>&1 || status=$?
    is "secrets printed" "$(grep -cF -e "$EUID_CLIENT_SECRET" -e "$EUID_API_KEY" "$scratch/$1" || true)" 0
    is "tokens printed" "$(grep -cE '[A-Za-z0-9_/+-]{60}' "$scratch/$1" || true)" 0
}
prints() { # prints NAME TEXT: the output of `check NAME` must have one line with the text
    is "lines with '$2'" "$(grep -cF -e "$2" "$scratch/$1" || true)" 1
}
check good
is "status for a working operator" "$status" 0
prints good "10 passed, 0 failed"
EUID_CLIENT_SECRET=$(head -c 32 /dev/zero | base64) check secret
is "status for a wrong secret" "$status" 1
prints secret "EUID_CLIENT_SECRET is not the one that was issued with EUID_API_KEY"
EUID_API_KEY=EUID-C-T-1-unknown.unknown-key check key
is "status for a wrong key" "$status" 1
prints key "Is EUID_API_KEY one of this very operator"
EUID_OPERATOR_URL=$hyper check page
is "status for the address of another server" "$status" 1
prints page "that is no EUID operator"
kill "$operator"; wait "$operator" 2>/dev/null || true
check down
is "status for an operator that is down" "$status" 1
prints down "Is EUID_OPERATOR_URL right"
EUID_OPERATOR_URL= check unset
is "status without an operator" "$status" 1
prints unset "not set: EUID_OPERATOR_URL"
EUID_OPERATOR_URL= check sandbox --sandbox
is "status for the embedded sandbox" "$status" 0
prints sandbox "10 passed, 0 failed"

echo "$passed passed, 0 failed"
