#!/usr/bin/env python3
"""Tests `euid-sidecar sandbox` with the Python SDK (`uid2-client`), and with plain AES-GCM.

Build it first: cargo build -p euid-sidecar
"""
import base64
import dataclasses
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
OPERATOR = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/euid-sidecar"


@dataclasses.dataclass(frozen=True)
class Scope:
    name: str
    advertising_tokens: tuple[str, str]  # their beginnings: for an email address, for a phone number
    advertising_token: int  # its length
    refresh_tokens: str


EUID = Scope("EUID", ("E4", "F4"), 219, "EA")
UID2 = Scope("UID2", ("A4", "B4"), 218, "AA")


def start(scope: Scope, **lifetimes: int) -> tuple[subprocess.Popen, dict]:
    variables = {"SCOPE": scope.name.lower()} | {name: str(value) for name, value in lifetimes.items()}
    env = os.environ | {"PORT": "0"} | {f"EUID_SANDBOX_{name}": value for name, value in variables.items()}
    process = subprocess.Popen([OPERATOR, "sandbox"], env=env, stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline().strip().split("=", 1) for _ in range(3)]
    return process, {name.removeprefix(scope.name + "_"): value for name, value in lines}


def sdk(settings: dict) -> Uid2PublisherClient:
    return Uid2PublisherClient(settings["OPERATOR_URL"], settings["API_KEY"], settings["CLIENT_SECRET"])


def post(settings: dict, path: str, body: str) -> bytes:
    request = urllib.request.Request(
        settings["OPERATOR_URL"] + path,
        body.encode(),
        {"Authorization": "Bearer " + settings["API_KEY"], "Content-Type": "text/plain"},
    )
    return base64.b64decode(urllib.request.urlopen(request, timeout=10).read())


def sdk_round_trip(scope: Scope, settings: dict) -> None:
    client = sdk(settings)
    email, phone = scope.advertising_tokens
    for person, prefix in (
        (TokenGenerateInput.from_email("user@example.com"), email),
        (TokenGenerateInput.from_phone("+442345678901"), phone),
        (TokenGenerateInput.from_hashed_email("tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="), email),
    ):
        generated = client.generate_token(person)
        assert generated.is_success()
        identity = generated.get_identity()
        for _ in range(3):
            token = identity.get_advertising_token()
            assert len(token) == scope.advertising_token and token.startswith(prefix), token
            refreshed = client.refresh_token(identity)
            assert refreshed.is_success()
            assert refreshed.get_identity().get_advertising_token() != token
            identity = refreshed.get_identity()


def sdk_opt_out(_: Scope, settings: dict) -> None:
    client = sdk(settings)
    assert client.generate_token(TokenGenerateInput.from_email("optout@example.com")).is_optout()
    generated = client.generate_token(TokenGenerateInput.from_email("refresh-optout@example.com"))
    assert generated.is_success()
    assert client.refresh_token(generated.get_identity()).is_optout()


def sdk_expired(_: Scope, settings: dict) -> None:
    client = sdk(settings)
    identity = client.generate_token(TokenGenerateInput.from_email("user@example.com")).get_identity()
    time.sleep(0.002)  # past the millisecond of its issue
    try:
        client.refresh_token(identity)
    except Exception as error:  # the SDK passes on the errors of urllib
        assert "400" in str(error), error
    else:
        raise AssertionError("an expired refresh token was refreshed")


def plain_aes_gcm(scope: Scope, settings: dict) -> None:
    """Uses only AES-GCM for the envelopes: request and response of a login, then the response of a refresh."""
    secret = AESGCM(base64.b64decode(settings["CLIENT_SECRET"]))
    nonce, iv = os.urandom(8), os.urandom(12)
    plain = struct.pack(">q", int(time.time() * 1000)) + nonce + json.dumps({"email": "user@example.com"}).encode()
    envelope = base64.b64encode(b"\x01" + iv + secret.encrypt(iv, plain, None)).decode()
    answer = post(settings, "/v2/token/generate", envelope)
    opened = secret.decrypt(answer[:12], answer[12:], None)
    assert abs(struct.unpack(">q", opened[:8])[0] / 1000 - time.time()) < 60 and opened[8:16] == nonce
    body = json.loads(opened[16:])["body"]
    assert len(body["refresh_token"]) == 388 and body["refresh_token"].startswith(scope.refresh_tokens)

    answer = post(settings, "/v2/token/refresh", body["refresh_token"])
    key = AESGCM(base64.b64decode(body["refresh_response_key"]))
    refreshed = json.loads(key.decrypt(answer[:12], answer[12:], None))
    assert refreshed["status"] == "success" and refreshed["body"]["refresh_from"] >= body["refresh_from"]


def main() -> None:
    passed = 0
    ended = {"REFRESH_FROM": 0, "IDENTITY_EXPIRES": 0, "REFRESH_EXPIRES": 0}
    for scope in (EUID, UID2):
        for lifetimes, checks in (({}, [sdk_round_trip, sdk_opt_out, plain_aes_gcm]), (ended, [sdk_expired])):
            process, settings = start(scope, **lifetimes)
            try:
                for check in checks:
                    check(scope, settings)
                    passed += 1
            finally:
                process.kill()
                process.wait()
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
