#!/usr/bin/env bash
# Makes the certificates of tests/client/tls.rs, valid from 2020 to 2120. Their keys are public: nothing but the
# tests may trust them.
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
touch "$scratch/index"
cat >"$scratch/conf" <<END
[ca]
default_ca = one
[one]
database = $scratch/index
new_certs_dir = $scratch
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:true
[server]
subjectAltName = IP:127.0.0.1
[client]
extendedKeyUsage = clientAuth
END

certificate() { # certificate NAME EXTENSIONS HOW: a key and the certificate that the root signs for it
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$scratch/$1.key"
    openssl req -new -config /dev/null -key "$scratch/$1.key" -subj "/CN=tower-euid test $1" -out "$scratch/$1.csr"
    openssl ca -config "$scratch/conf" -batch -notext -startdate 20200101000000Z -enddate 21200101000000Z \
        -extensions "$2" -in "$scratch/$1.csr" -keyfile "$scratch/ca.key" $3 -out "$1.pem"
}

certificate ca root "-selfsign"
certificate server server "-cert ca.pem"
certificate client client "-cert ca.pem"
for name in server client; do cat "$scratch/$name.key" >>"$name.pem"; done
