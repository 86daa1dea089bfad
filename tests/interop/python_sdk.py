#!/usr/bin/env python3
"""Tests the `sandbox_operator` example with the Python SDK (`uid2-client`), and with plain AES-GCM.

Build the example first: cargo build --example sandbox_operator
"""
import base64
import json
import os
import pathlib
import struct
import subprocess
import time
import urllib.request

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from uid2_client import TokenGenerateInput, Uid2PublisherClient

ROOT = pathlib.Path(__file__).parent.parent.parent
OPERATOR = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/examples/sandbox_operator"


def start(**lifetimes: int) -> tuple[subprocess.Popen, dict]:
    env = os.environ | {"PORT": "0"} | {f"EUID_SANDBOX_{name}": str(value) for name, value in lifetimes.items()}
    process = subprocess.Popen([OPERATOR], env=env, stdout=subprocess.PIPE, text=True)
    return process, dict(process.stdout.readline().strip().split("=", 1) for _ in range(3))


def sdk(settings: dict) -> Uid2PublisherClient:
    return Uid2PublisherClient(
        settings["EUID_OPERATOR_URL"], settings["EUID_API_KEY"], settings["EUID_CLIENT_SECRET"]
    )


def post(settings: dict, path: str, body: str) -> bytes:
    request = urllib.request.Request(
        settings["EUID_OPERATOR_URL"] + path,
        body.encode(),
        {"Authorization": "Bearer " + settings["EUID_API_KEY"], "Content-Type": "text/plain"},
    )
    return base64.b64decode(urllib.request.urlopen(request, timeout=10).read())


def sdk_round_trip(settings: dict) -> None:
    client = sdk(settings)
    for person, prefix in (
        (TokenGenerateInput.from_email("user@example.com"), "E4"),
        (TokenGenerateInput.from_phone("+442345678901"), "F4"),
        (TokenGenerateInput.from_hashed_email("tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="), "E4"),
    ):
        generated = client.generate_token(person)
        assert generated.is_success()
        identity = generated.get_identity()
        for _ in range(3):
            token = identity.get_advertising_token()
            assert len(token) == 219 and token.startswith(prefix), token
            refreshed = client.refresh_token(identity)
            assert refreshed.is_success()
            assert refreshed.get_identity().get_advertising_token() != token
            identity = refreshed.get_identity()


def sdk_opt_out(settings: dict) -> None:
    client = sdk(settings)
    assert client.generate_token(TokenGenerateInput.from_email("optout@example.com")).is_optout()
    generated = client.generate_token(TokenGenerateInput.from_email("refresh-optout@example.com"))
    assert generated.is_success()
    assert client.refresh_token(generated.get_identity()).is_optout()


def sdk_expired(settings: dict) -> None:
    client = sdk(settings)
    identity = client.generate_token(TokenGenerateInput.from_email("user@example.com")).get_identity()
    time.sleep(0.002)  # past the millisecond of its issue
    try:
        client.refresh_token(identity)
    except Exception as error:  # the SDK passes on the errors of urllib
        assert "400" in str(error), error
    else:
        raise AssertionError("an expired refresh token was refreshed")


def plain_aes_gcm(settings: dict) -> None:
    """Uses only AES-GCM for the envelopes: request and response of a login, then the response of a refresh."""
    secret = AESGCM(base64.b64decode(settings["EUID_CLIENT_SECRET"]))
    nonce, iv = os.urandom(8), os.urandom(12)
    plain = struct.pack(">q", int(time.time() * 1000)) + nonce + json.dumps({"email": "user@example.com"}).encode()
    envelope = base64.b64encode(b"\x01" + iv + secret.encrypt(iv, plain, None)).decode()
    answer = post(settings, "/v2/token/generate", envelope)
    opened = secret.decrypt(answer[:12], answer[12:], None)
    assert abs(struct.unpack(">q", opened[:8])[0] / 1000 - time.time()) < 60 and opened[8:16] == nonce
    body = json.loads(opened[16:])["body"]
    assert len(body["refresh_token"]) == 388 and body["refresh_token"].startswith("EA")

    answer = post(settings, "/v2/token/refresh", body["refresh_token"])
    key = AESGCM(base64.b64decode(body["refresh_response_key"]))
    refreshed = json.loads(key.decrypt(answer[:12], answer[12:], None))
    assert refreshed["status"] == "success" and refreshed["body"]["refresh_from"] >= body["refresh_from"]


def main() -> None:
    passed = 0
    for lifetimes, checks in (
        ({}, [sdk_round_trip, sdk_opt_out, plain_aes_gcm]),
        ({"REFRESH_FROM": 0, "IDENTITY_EXPIRES": 0, "REFRESH_EXPIRES": 0}, [sdk_expired]),
    ):
        process, settings = start(**lifetimes)
        try:
            for check in checks:
                check(settings)
                passed += 1
        finally:
            process.kill()
            process.wait()
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
