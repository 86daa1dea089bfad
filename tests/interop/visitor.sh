#!/usr/bin/env bash
# Tests of the examples and of the sidecar's commands with curl and a cookie jar, real processes and real sockets.
# If PYTHON is set to a Python that has the package cryptography, it opens the cookies of the publisher.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --quiet --examples
cargo build --quiet --package euid-sidecar
examples=${CARGO_TARGET_DIR:-target}/debug/examples
sidecar=${CARGO_TARGET_DIR:-target}/debug/euid-sidecar
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
start_site() { # start_site NAME: the publisher on embedded sandboxes; sets $site
    PORT=0 start "$1" 'http://127.0.0.1:[0-9]+' "$examples/publisher"
    # The first addresses are those of operators. The line of the site begins with its name.
    for _ in $(seq 100); do
        site=$(sed -nE 's/^site: +(http:.*)\/$/\1/p' "$scratch/$1.log")
        [ -n "$site" ] && return
        sleep 0.05
    done
    fail "the site has printed no address"
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
# The cookies of a login have its tag at the end of their names: the first four characters of the anchor's value.
cookie() { echo "__Host-$1.$(value __Host-euid-login | cut -c1-4)"; } # cookie euid|euid-optout
names() { printf '%s\n' "$@" | sort | paste -sd' '; }
in_jar() { grep -v '^# ' "$jar" | cut -s -f6 | { grep -F __Host-euid || true; } | sort | paste -sd' '; }
cookies_set() { grep -ciE '^set-cookie: __Host-euid' "$scratch/head" || true; }
removes() { tr -d '\r' <"$scratch/head" | grep -cE "^set-cookie: $1=;" || true; }
login() { is "status of a login as $2" "$(visit --data-urlencode "$1=$2" "$site/login")" 303; }
advance() { is "status of advance" "$(visit -d "seconds=$1" "$site/sandbox/advance")" 303; }
key() { "$sidecar" keygen | sed -n 's/EUID_COOKIE_KEYS=//p'; }
value() { awk -F'\t' -v name="$1" '$6 == name { print $7 }' "$jar"; }
with_cookies() { curl -s --max-time 10 -o "$scratch/body" -D "$scratch/head" -w '%{http_code}' -b "$1" "$site/api/identity"; }

echo "-- the site on an embedded sandbox"
site_key=$(key)
SCOPE=euid RUST_LOG=tower_euid=debug EUID_COOKIE_KEYS=$site_key start_site site

is "health" "$(visit "$site/health")" 200
identity; is "state before any login" "$(state)" absent
is "cookies set without a login" "$(cookies_set)" 0

login email user@example.com
set_identity=$(attributes "$(cookie euid)") set_anchor=$(attributes __Host-euid-login)
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
name=$(cookie euid) before=$(value "$(cookie euid)")
is "status of the logout" "$(visit -X POST "$site/logout")" 303
is "attributes of the identity when cleared" "$(attributes "$name")" "$set_identity"
is "attributes of the anchor when cleared" "$(attributes __Host-euid-login)" "$set_anchor"
identity; is "state after the logout" "$(state)" absent
is "status with the old identity put back" "$(with_cookies "$name=$before")" 200
is "state with the old identity put back" "$(state)" absent

echo "-- a refresh that is answered after the logout"
login email user@example.com
advance 900
name=$(cookie euid)
cp "$jar" "$scratch/before"
is "status of slowing the operator down" "$(visit -d operator=slow "$site/sandbox/operator")" 303
is "status of the page that begins the refresh" "$(with_cookies "$scratch/before")" 200
is "cookies set before the operator answers" "$(cookies_set)" 0
is "status of the logout before the answer" "$(visit -X POST "$site/logout")" 303
# Unlike a browser, curl writes removed cookies back into its jar, all but the last that a response removes, because it
# reads the file again before it writes. Only the anchor counts, so a logout removes it last.
is "anchors left by the logout" "$(grep -c __Host-euid-login "$jar" || true)" 0
# A request with the cookies from before the logout gets the late answer.
for _ in $(seq 100); do
    cp "$scratch/before" "$scratch/late"
    curl -s --max-time 10 -b "$scratch/late" -c "$scratch/late" -D "$scratch/head" -o "$scratch/body" "$site/api/identity"
    [ "$(cookies_set)" = 0 ] || break
    sleep 0.1
done
is "cookies set by the late answer" "$(cookies_set)" 1
sed -i "/$name\t/d" "$jar"
grep -P "$name\t" "$scratch/late" >>"$jar"
is "cookies in the jar after the late answer" "$(in_jar)" "$name"
[ "$(grep -P "$name\t" "$jar")" != "$(grep -P "$name\t" "$scratch/before")" ] || fail "the late identity is the old one"
identity; is "state after the late answer" "$(state)" absent
is "the late identity is cleared" "$(removes "$name")" 1
is "status of speeding the operator up" "$(visit -d operator=up "$site/sandbox/operator")" 303

echo "-- a page whose response arrives after that of a login or a logout"
mkfifo "$scratch/late_body"
# Requests a page, and runs the command between the response's head and its body. Then the cookies of that response
# arrive in the jar. Curl can't do that with one file: it would also write the cookies that it began with.
before_page_arrives() { # before_page_arrives COMMAND...
    local late_jar=$scratch/late_jar late_head=$scratch/late_head page set_cookie
    cp "$jar" "$late_jar"
    rm -f "$late_head"
    curl -s --max-time 20 -b "$late_jar" -c "$late_jar" -D "$late_head" -o "$scratch/late_body" "$site/" &
    page=$!
    for _ in $(seq 200); do grep -qs $'^\r$' "$late_head" && break; sleep 0.05; done
    grep -qs $'^\r$' "$late_head" || fail "the page has no head"
    "$@"
    timeout 20 cat "$scratch/late_body" >/dev/null
    wait "$page"
    for set_cookie in $(sed -nE 's/^set-cookie: ([^=]+=[^;]?).*/\1/Ip' "$late_head"); do
        awk -F'\t' -v name="${set_cookie%%=*}" '$6 != name' "$jar" >"$scratch/jar_without"
        case $set_cookie in *=?) awk -F'\t' -v name="${set_cookie%%=*}" '$6 == name' "$late_jar" ;; esac >>"$scratch/jar_without"
        mv "$scratch/jar_without" "$jar"
    done
}
logout() { is "status of the logout" "$(visit -X POST "$site/logout")" 303; }
sets() { tr -d '\r' <"$scratch/late_head" | grep -cE "^set-cookie: $1=[^;]+;" || true; }
due_login() { rm -f "$jar"; login email "$1"; advance 900; late=$(cookie euid) late_record=$(cookie euid-optout); }

due_login user@example.com
before_page_arrives login phone +12345678901
is "identities set by the late page" "$(sets "$late")" 1
newer=$(cookie euid)
[ "$newer" != "$late" ] || fail "two logins have one tag; that happens once in 2^24"
is "cookies after the late page" "$(in_jar)" "$(names __Host-euid-login "$late" "$newer")"
before=$(value "$newer")
identity; is "state of the newer login" "$(state)" active; first=$(token)
is "cookies after the next page" "$(in_jar)" "$(names __Host-euid-login "$newer")"
is "identity of the newer login" "$(value "$newer")" "$before"
identity; is "token of the second page" "$(token)" "$first"

due_login user@example.com
before_page_arrives logout
is "identities set by the late page" "$(sets "$late")" 1
is "cookies after the late page" "$(in_jar)" "$late"
for page in 1 2; do
    identity; is "state on page $page after the logout" "$(state)" absent; is "token" "$(token)" ""
    is "cookies after page $page" "$(in_jar)" ""
done

due_login refresh-optout@example.com
before_page_arrives login phone +12345678901
is "records set by the late page" "$(sets "$late_record")" 1
newer=$(cookie euid)
identity; is "state of the newer login" "$(state)" active
is "cookies after the next page" "$(in_jar)" "$(names __Host-euid-login "$newer")"

due_login user@example.com
before_page_arrives login email optout@example.com
is "identities set by the late page" "$(sets "$late")" 1
for page in 1 2; do
    identity; is "state on page $page after the opt-out" "$(state)" opted_out; is "token" "$(token)" ""
done
is "cookies after the opt-out" "$(in_jar)" "$(names __Host-euid-login "$(cookie euid-optout)")"

echo "-- the same, with the cookie of the JavaScript SDK"
plain_site=$site
SCOPE=euid COOKIES_FOR_SCRIPTS=1 EUID_COOKIE_KEYS=$site_key start_site sdk_site
sdk_visitor() { # The identity is fresh, so the site takes it over without a call to the operator.
    local now text
    now=$(date +%s)
    text='{"advertising_token":"QUFB","refresh_token":"QUFB","refresh_response_key":"'$(head -c 32 /dev/zero | base64)'"'
    text+=',"refresh_from":'$((now + 3600))'000,"identity_expires":'$((now + 7200))'000'
    text+=',"refresh_expires":'$((now + 86400))'000}'
    text=$(sed 's/"/%22/g; s/{/%7B/g; s/}/%7D/g; s/,/%2C/g; s/=/%3D/g' <<<"$text")
    printf '127.0.0.1\tFALSE\t/\tFALSE\t0\t__euid\t%s\n' "$text" >"$jar"
}
sdk_visitor
identity; is "state of the SDK's visitor" "$(state)" active; is "the SDK's token" "$(token)" QUFB
is "cookies of the SDK's visitor" "$(in_jar)" __Host-euid.sdk
is "the SDK's cookie" "$(value __euid)" ""

sdk_visitor
before_page_arrives login phone +12345678901
is "identities set by the late page" "$(sets __Host-euid.sdk)" 1
newer=$(cookie euid) before=$(value "$(cookie euid)")
identity; is "state of the newer login" "$(state)" active
[ "$(token)" != QUFB ] || fail "the page has the token of the SDK's cookie"
# Curl keeps it all the same: see above.
is "the SDK's identity removed by the next page" "$(removes __Host-euid.sdk)" 1
is "identity of the newer login" "$(value "$newer")" "$before"

sdk_visitor
before_page_arrives logout
is "identities set by the late page" "$(sets __Host-euid.sdk)" 1
for page in 1 2; do
    identity; is "state on page $page after the logout" "$(state)" absent; is "token" "$(token)" ""
    is "the SDK's identity removed by page $page" "$(removes __Host-euid.sdk)" 1
done
is "cookies after page 2" "$(in_jar)" __Host-euid-login
is "anchor after the logout" "$(value __Host-euid-login)" none
login email user@example.com
identity; is "state after another login" "$(state)" active
site=$plain_site
rm -f "$jar"

echo "-- the site's cookies, opened by another implementation"
opened() { "$PYTHON" tests/interop/cookie_format.py "$site_key" "$1" "$(value "$1")" >"$scratch/opened"; }
member() { sed -nE 's/^ "'"$1"'": "?([^",]*)"?,?$/\1/p' "$scratch/opened"; }
if [ -n "${PYTHON:-}" ]; then
    login email user@example.com
    for since in login refresh; do
        identity; opened "$(cookie euid)"
        is "token in the cookie since the $since" "$(member advertising_token)" "$(token)"
        is "lineage in the cookie since the $since" "$(member lineage)" "$(value __Host-euid-login)"
        advance 900
    done
    login email refresh-optout@example.com
    advance 900
    identity; opened "$(cookie euid-optout)"
    is "lineage in the record of an opt-out" "$(member lineage)" "$(value __Host-euid-login)"
    is "length of the time in the record" "$(member until | tr -d '\n' | wc -c)" 13
else
    echo "skipped: PYTHON is not set"
fi

echo "-- invalid cookies"
login email user@example.com
name=$(cookie euid) identity_value=$(value "$(cookie euid)") anchor_value=$(value __Host-euid-login)
middle=${identity_value:300:1}; [ "$middle" = A ] && other=B || other=A
for bad in "${identity_value:0:300}$other${identity_value:301}" "${identity_value:0:500}" "${identity_value%?}" \
    "$(head -c 3750 /dev/zero | base64 -w0 | tr = A)" "$anchor_value" ""; do
    is "status of a page with a bad cookie" "$(with_cookies "$name=$bad; __Host-euid-login=$anchor_value")" 200
    is "state with a bad cookie" "$(state)" absent
done
is "the log with RUST_LOG has the reason" "$(grep -q forged "$scratch/site.log.err" && echo yes)" yes
is "status with the names swapped" "$(with_cookies "$name=$anchor_value; __Host-euid-login=$identity_value")" 200
is "state with the names swapped" "$(state)" absent
with_cookies "a=b; __Host-euid-login=$anchor_value; $name=$identity_value; c=d" >/dev/null
is "state with the valid cookies among others" "$(state)" active

echo "-- invalid input"
is "status for no address" "$(visit -d "" "$site/login")" 400
is "status for an invalid address" "$(visit -d email=not-an-address "$site/login")" 400
is "status for an invalid number" "$(visit -d phone=12345 "$site/login")" 400
identity; is "state after failed logins" "$(state)" absent
is "status for another site's name" "$(visit -H 'Host: evil.example' "$site/api/identity")" 421

echo "-- both regions"
from() { visit -H "X-Region: $1" "${@:2}"; } # from REGION ARGUMENTS
sees() { # sees REGION STATE: what a page sees there
    is "status of a page from the $1" "$(from "$1" "$site/api/identity")" 200
    is "state in the $1" "$(state)" "$2"
}
travel() { # logs in in both regions of $site, and out
    local first second name region
    rm -f "$jar"
    is "status of a login from the EU" "$(from eu -d email=user@example.com "$site/login")" 303
    sees eu active; first=$(token)
    is "beginning of a token from the EU" "${first:0:2}" E4
    sees us absent
    is "status of a login from the US" "$(from us -d email=user@example.com "$site/login")" 303
    sees us active; second=$(token)
    is "beginning of a token from the US" "${second:0:2}" A4
    sees eu active; is "token in the EU after the login in the US" "$(token)" "$first"
    is "status of the choice of the US" "$(visit -d region=us "$site/region")" 303
    identity; is "token after that choice" "$(token)" "$second"
    set -- "$(cookie euid)" __Host-euid-login "__Host-uid2.$(value __Host-uid2-login | cut -c1-4)" __Host-uid2-login
    is "status of the logout" "$(visit -X POST "$site/logout")" 303
    for name in "$@"; do is "removals of $name by the logout" "$(removes "$name")" 1; done
    # Curl has kept one anchor (see above), but the site's own session has ended.
    for region in eu us; do sees $region absent; is "token in the $region" "$(token)" ""; done
}
start_site regions
travel
for scope in euid uid2; do
    EUID_SANDBOX_SCOPE=$scope PORT=0 start "$scope" '_CLIENT_SECRET=.*' "$sidecar" sandbox
    export $(grep -hE '^(EUID|UID2)_' "$scratch/$scope.log")
done
start_site regions_of_operators
is "embedded sandboxes beside the operators" "$(grep -c embedded "$scratch/regions_of_operators.log" || true)" 0
travel
unset "${!UID2_@}" EUID_OPERATOR_URL EUID_API_KEY EUID_CLIENT_SECRET

echo "-- the site with an operator that stops and starts again"
EUID_SANDBOX_REFRESH_FROM=1 EUID_SANDBOX_IDENTITY_EXPIRES=6 EUID_SANDBOX_REFRESH_EXPIRES=600 PORT=0 \
    start operator 'EUID_CLIENT_SECRET=.*' "$sidecar" sandbox
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
    PORT=${EUID_OPERATOR_URL##*:} start operator2 'EUID_CLIENT_SECRET=.*' "$sidecar" sandbox
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
name=$(cookie euid) before=$(value "$(cookie euid)")
is "page of a process that does not have the key" "$(page "$only_new")" absent
is "the cookie after that page" "$(value "$name")" "$before"
is "second page of the first process" "$(page "$one")" "a token"
is "login at the process that seals under the new key" "$(at "$new_first/login" -d user@example.com)" "logged in"
is "page of the process that has only the new key" "$(page "$only_new")" "a token"
is "page of a process that does not have the new key" "$(page "$two")" absent
is "logout at that process" "$(at "$two/logout" -X POST)" "logged out"
is "page after the logout" "$(page "$new_first")" absent

echo "-- euid-sidecar check"
check() { # check NAME [ARGUMENT]: sets $status; the output is in $scratch/NAME
    status=0
    "$sidecar" check "${@:2}" >"$scratch/$1" 2>&1 || status=$?
    is "secrets printed" "$(grep -cF -e "$EUID_CLIENT_SECRET" -e "$EUID_API_KEY" "$scratch/$1" || true)" 0
    is "tokens printed" "$(grep -cE '[A-Za-z0-9_/+-]{60}' "$scratch/$1" || true)" 0
}
prints() { # prints NAME TEXT [COUNT]: the output of `check NAME` must have one line with the text, or so many
    is "lines with '$2'" "$(grep -cF -e "$2" "$scratch/$1" || true)" "${3:-1}"
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
is "status for the embedded sandboxes" "$status" 0
prints sandbox "10 passed, 0 failed" 2 # one in each scope

echo "$passed passed, 0 failed"
