#!/usr/bin/env bash
# The examples as a visitor meets them: curl with a cookie jar, real processes, real sockets.
# With PYTHON set to one that has the package cryptography, it opens what the publisher sets.
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
is() { # is WHAT ACTUAL EXPECTED
    [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
    passed=$((passed + 1))
}
start() { # start NAME PATTERN COMMAND...: runs it, waits for a line, sets $process and $line
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
# Of the last answer: a cookie's attributes (without value and Max-Age), and how many of ours it sets.
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
# The first line is the operator's; the site's is told by its name.
for _ in $(seq 100); do site=$(sed -nE 's/^site: +(http:.*)\/$/\1/p' "$scratch/site.log"); [ -n "$site" ] && break; sleep 0.05; done
[ -n "$site" ] || fail "no address of the site"

is "health" "$(visit "$site/health")" 200
identity; is "state before any login" "$(state)" absent
is "cookies set for nobody" "$(cookies_set)" 0

login email user@example.com
set_identity=$(attributes __Host-euid) set_anchor=$(attributes __Host-euid-login)
is "attributes are seen" "$set_identity" "HttpOnly; SameSite=Lax; Secure; Path=/; "
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
identity; is "state after a login of somebody who opted out" "$(state)" opted_out

login phone +12345678901
identity; is "state after a login as someone else" "$(state)" active
before=$(value __Host-euid)
is "status of the logout" "$(visit -X POST "$site/logout")" 303
is "attributes of clearing and setting the identity" "$(attributes __Host-euid)" "$set_identity"
is "attributes of clearing and setting the anchor" "$(attributes __Host-euid-login)" "$set_anchor"
identity; is "state after the logout" "$(state)" absent
is "status with the old identity put back" "$(with_cookies "__Host-euid=$before")" 200
is "state with the old identity put back" "$(state)" absent

echo "-- a refresh that is answered after the logout"
login email user@example.com
advance 900
cp "$jar" "$scratch/before"
is "status of slowing the operator down" "$(visit -d operator=slow "$site/sandbox/operator")" 303
is "status of the page that begins the refresh" "$(with_cookies "$scratch/before")" 200
is "cookies set while the operator thinks" "$(cookies_set)" 0
is "status of the logout meanwhile" "$(visit -X POST "$site/logout")" 303
# This curl writes an identity that was removed back into its jar (it reads the file again before it writes); a browser
# does not. It is the anchor that counts.
is "anchors left by the logout" "$(grep -c __Host-euid-login "$jar" || true)" 0
# A request that was sent before the logout gets the answer that comes after it.
for _ in $(seq 100); do
    cp "$scratch/before" "$scratch/late"
    curl -s --max-time 10 -b "$scratch/late" -c "$scratch/late" -D "$scratch/head" -o "$scratch/body" "$site/api/identity"
    [ "$(cookies_set)" = 0 ] || break
    sleep 0.1
done
is "cookies set by the late answer" "$(cookies_set)" 1
sed -i '/__Host-euid\t/d' "$jar"
grep -P '__Host-euid\t' "$scratch/late" >>"$jar"
is "what the jar holds after the late answer" "$(grep -o '__Host-euid[-a-z]*' "$jar")" __Host-euid
[ "$(grep -P '__Host-euid\t' "$jar")" != "$(grep -P '__Host-euid\t' "$scratch/before")" ] || fail "the late identity is the old one"
identity; is "state after the late answer" "$(state)" absent
is "the late identity is cleared" "$(tr -d '\r' <"$scratch/head" | grep -ci '^set-cookie: __Host-euid=;')" 1
is "status of speeding the operator up" "$(visit -d operator=up "$site/sandbox/operator")" 303
echo "-- the site's cookies, opened by another language"
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
    is "length of the moment in it" "$(member until | tr -d '\n' | wc -c)" 13
else
    echo "left out: PYTHON is not set"
fi

echo "-- cookies that are not what they say"
login email user@example.com
identity_value=$(value __Host-euid) anchor_value=$(value __Host-euid-login)
middle=${identity_value:300:1}; [ "$middle" = A ] && other=B || other=A
for bad in "${identity_value:0:300}$other${identity_value:301}" "${identity_value:0:500}" "${identity_value%?}" \
    "$(head -c 3750 /dev/zero | base64 -w0 | tr = A)" "$anchor_value" ""; do
    is "status of a page with a bad cookie" "$(with_cookies "__Host-euid=$bad; __Host-euid-login=$anchor_value")" 200
    is "state with a bad cookie" "$(state)" absent
done
is "the log with RUST_LOG says why" "$(grep -q forged "$scratch/site.log.err" && echo yes)" yes
is "status with the names swapped" "$(with_cookies "__Host-euid=$anchor_value; __Host-euid-login=$identity_value")" 200
is "state with the names swapped" "$(state)" absent
with_cookies "a=b; __Host-euid-login=$anchor_value; __Host-euid=$identity_value; c=d" >/dev/null
is "state of the good one among others" "$(state)" active

echo "-- input that is wrong"
is "status for no address" "$(visit -d "" "$site/login")" 400
is "status for a wrong address" "$(visit -d email=nobody "$site/login")" 400
is "status for a wrong number" "$(visit -d phone=12345 "$site/login")" 400
identity; is "state after logins that failed" "$(state)" absent
is "status for another site's name" "$(visit -H 'Host: evil.example' "$site/api/identity")" 421

echo "-- the site on an operator that dies and comes back"
EUID_SANDBOX_REFRESH_FROM=1 EUID_SANDBOX_IDENTITY_EXPIRES=6 EUID_SANDBOX_REFRESH_EXPIRES=600 PORT=0 \
    start operator 'EUID_CLIENT_SECRET=.*' "$examples/sandbox_operator"
operator=$process
export $(grep -h '^EUID_' "$scratch/operator.log")
if EUID_API_KEY='' "$examples/publisher" 2>"$scratch/refused"; then fail "started with a part of the variables"; fi
is "what is missing is named" "$(grep -c 'not set: EUID_API_KEY' "$scratch/refused")" 1
PORT=0 start site2 'site: +http://127.0.0.1:[0-9]+' "$examples/publisher"
site=http${line#*http}
rm -f "$jar"
login email user@example.com
identity; is "state" "$(state)" active; first=$(token)
sleep 1.2
kill "$operator"; wait "$operator" 2>/dev/null || true
identity; is "state while the operator is down" "$(state)" active
is "token while the operator is down" "$(token)" "$first"
is "status of a login while the operator is down" "$(curl -s -o /dev/null -w '%{http_code}' -d email=user@example.com "$site/login")" 503
sleep 4.5
identity; is "state after the token's end" "$(state)" unavailable
is "cookies set after the token's end" "$(cookies_set)" 0
EUID_SANDBOX_REFRESH_FROM=1 EUID_SANDBOX_IDENTITY_EXPIRES=600 EUID_SANDBOX_REFRESH_EXPIRES=600 \
    PORT=${EUID_OPERATOR_URL##*:} start operator2 'EUID_CLIENT_SECRET=.*' "$examples/sandbox_operator"
operator=$process
# After two failures the token rests for 10 s at most.
for _ in $(seq 60); do identity; [ "$(state)" = active ] && break; sleep 0.25; done
is "state when the operator is back" "$(state)" active
[ "$(token)" != "$first" ] || fail "the token is the old one"

echo "-- the layer on plain hyper"
node() { EUID_COOKIE_KEYS=$2 PORT=0 start "$1" 'http://127.0.0.1:[0-9]+' "$examples/hyper_service"; } # node NAME KEYS
node hyper "$(key)"; hyper=$line
rm -f "$jar"
is "page" "$(curl -s -b "$jar" -c "$jar" "$hyper/")" absent
is "login" "$(curl -s -b "$jar" -c "$jar" -d user@example.com "$hyper/login")" "logged in"
length=$(curl -s -b "$jar" -c "$jar" "$hyper/" | tr -d '\n' | wc -c); is "length of the token" "$length" 219
is "status of a login with a typo" "$(curl -s -o /dev/null -w '%{http_code}' -b "$jar" -c "$jar" -d user.example.com "$hyper/login")" 400
is "page after it" "$(curl -s -b "$jar" -c "$jar" "$hyper/")" absent
is "login" "$(curl -s -b "$jar" -c "$jar" -d user@example.com "$hyper/login")" "logged in"
is "logout" "$(curl -s -b "$jar" -c "$jar" -X POST "$hyper/logout")" "logged out"
is "page" "$(curl -s -b "$jar" -c "$jar" "$hyper/")" absent

echo "-- cookies of one process in others"
old=$(key) new=$(key)
node one "$old"; one=$line
node two "$old"; two=$line
node both "$old,$new"; both=$line
node turned "$new,$old"; turned=$line
node stranger "$new"; stranger=$line
at() { curl -s --max-time 10 -b "$jar" -c "$jar" "${@:2}" "$1" | tr -d '\n'; }
page() { at "$1/" | sed -E 's/^.{219}$/a token/'; }
rm -f "$jar"
is "login at one process" "$(at "$one/login" -d user@example.com)" "logged in"
for other in "$two" "$both" "$turned" "$one"; do is "page of a process with its key" "$(page "$other")" "a token"; done
before=$(value __Host-euid)
is "page of a process without" "$(page "$stranger")" absent
is "the cookie afterwards" "$(value __Host-euid)" "$before"
is "page of the first, again" "$(page "$one")" "a token"
is "login at the process that seals under the new key" "$(at "$turned/login" -d user@example.com)" "logged in"
is "page of the one that knows the new key alone" "$(page "$stranger")" "a token"
is "page of one that has not heard of it" "$(page "$two")" absent
is "logout there" "$(at "$two/logout" -X POST)" "logged out"
is "page after it" "$(page "$turned")" absent

echo "-- the check of an operator"
check() { # check NAME [ARGUMENT]: sets $status; what it prints is in $scratch/NAME
    status=0
    "$examples/check_operator" "${@:2}" >"$scratch/$1" 2>&1 || status=$?
    is "secrets printed" "$(grep -cF -e "$EUID_CLIENT_SECRET" -e "$EUID_API_KEY" "$scratch/$1" || true)" 0
    is "tokens printed" "$(grep -cE '[A-Za-z0-9_/+-]{60}' "$scratch/$1" || true)" 0
}
says() { # says NAME TEXT
    is "'$2' in what is said" "$(grep -cF -e "$2" "$scratch/$1" || true)" 1
}
check good
is "status for a good operator" "$status" 0
says good "10 passed, 0 failed"
EUID_CLIENT_SECRET=$(head -c 32 /dev/zero | base64) check secret
is "status for a wrong secret" "$status" 1
says secret "EUID_CLIENT_SECRET is not the one that was issued with EUID_API_KEY"
EUID_API_KEY=EUID-C-T-1-nobody.nobodys-key check key
is "status for a wrong key" "$status" 1
says key "Is EUID_API_KEY one of this very operator"
EUID_OPERATOR_URL=$hyper check page
is "status for an address that is no operator's" "$status" 1
says page "that is no EUID operator"
kill "$operator"; wait "$operator" 2>/dev/null || true
check down
is "status for an operator that is down" "$status" 1
says down "Is EUID_OPERATOR_URL right"
EUID_OPERATOR_URL= check unset
is "status without an operator" "$status" 1
says unset "not set: EUID_OPERATOR_URL"
EUID_OPERATOR_URL= check sandbox --sandbox
is "status for the embedded sandbox" "$status" 0
says sandbox "10 passed, 0 failed"

echo "$passed passed, 0 failed"
