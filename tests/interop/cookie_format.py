#!/usr/bin/env python3
"""An independent implementation of the cookie format: opens every vector of tests/vectors/cookie-format.json.

Its only source is src/docs/cookie_format.md; AES and AES-GCM are from the package `cryptography`.
With `--write` it writes the vectors again. Its nonces are fixed, so the file stays the same.
With a key, a cookie name and a value it prints the content of the value.
"""
import base64
import hashlib
import hmac
import json
import pathlib
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = pathlib.Path(__file__).parent.parent / "vectors" / "cookie-format.json"
VERSION, IDENTITY, OPT_OUT = 1, 1, 2
SUBJECT = 0x10


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def b64url_strict(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"tower-euid cookie key id" + key).digest()[:4]


def xaes(key: bytes, nonce: bytes) -> tuple[AESGCM, bytes]:
    """XAES-256-GCM is AES-256-GCM under a key derived from the first half of the nonce."""
    aes = Cipher(algorithms.AES(key), modes.ECB())

    def block(data: bytes) -> bytes:
        return aes.encryptor().update(data)

    l = int.from_bytes(block(bytes(16)), "big")
    k1 = ((l << 1) & (2**128 - 1)) ^ (0x87 if l >> 127 else 0)
    derived = b"".join(
        block((int.from_bytes(bytes([0, counter, 0x58, 0]) + nonce[:12], "big") ^ k1).to_bytes(16, "big"))
        for counter in (1, 2)
    )
    return AESGCM(derived), nonce[12:]


def seal(key: bytes, name: str, nonce: bytes, plain: bytes, purpose: int = IDENTITY) -> str:
    head = bytes([VERSION, purpose]) + key_id(key)
    gcm, iv = xaes(key, nonce)
    return b64url(head + nonce + gcm.encrypt(iv, plain, head + name.encode()))


def open_(key: bytes, name: str, value: str) -> dict:
    purpose = OPT_OUT if name.endswith("-optout") else IDENTITY
    data = b64url_strict(value)
    head, nonce, sealed = data[:6], data[6:30], data[30:]
    if head[0] != VERSION or head[2:] != key_id(key):
        raise LookupError("unknown version or key")
    if head[1] != purpose:
        raise InvalidTag
    if len(sealed) < 16:
        raise ValueError("too short for a tag")
    gcm, iv = xaes(key, nonce)
    plain = gcm.decrypt(iv, sealed, head + name.encode())
    return parse(plain) if purpose == IDENTITY else parse_opt_out(plain)


def subject(lineage: bytes, user: str) -> bytes:
    return hmac.digest(lineage, b"tower-euid subject" + user.encode(), "sha256")[:16]


def token_bytes(token: str) -> tuple[int, bytes]:
    for encoding, decode, encode in (
        (1, b64url_strict, b64url),
        (2, lambda t: base64.b64decode(t, validate=True), lambda b: base64.b64encode(b).decode()),
    ):
        try:
            data = decode(token)
            if encode(data) == token:
                return encoding, data
        except ValueError:
            pass
    return 0, token.encode()


def token_text(encoding: int, data: bytes) -> str:
    return [lambda b: b.decode(), b64url, lambda b: base64.b64encode(b).decode()][encoding](data)


def write_login(flags: int, holds: dict) -> bytes:
    lineage, user = b64url_strict(holds["lineage"]), holds.get("subject_of")
    if user is None:
        return bytes([flags]) + lineage
    return bytes([flags | SUBJECT]) + lineage + subject(lineage, user)


def write(identity: dict) -> bytes:
    (a, advertising), (r, refresh) = token_bytes(identity["advertising_token"]), token_bytes(identity["refresh_token"])
    return (
        write_login(a | r << 2, identity)
        + struct.pack(">qqq", identity["refresh_from"], identity["identity_expires"], identity["refresh_expires"])
        + base64.b64decode(identity["refresh_response_key"])
        + struct.pack(">H", len(advertising)) + advertising
        + struct.pack(">H", len(refresh)) + refresh
    )


def write_opt_out(record: dict) -> bytes:
    return write_login(0, record) + struct.pack(">q", record["until"])


def parse_login(plain: bytes) -> tuple[int, dict, bytes]:
    flags, lineage, rest = plain[0], plain[1:17], plain[17:]
    assert flags & 0b1110_0000 == 0
    holds = {"lineage": b64url(lineage)}
    if flags & SUBJECT:
        holds["subject"], rest = rest[:16].hex(), rest[16:]
    return flags & 0b1111, holds, rest


def parse(plain: bytes) -> dict:
    flags, holds, rest = parse_login(plain)
    refresh_from, identity_expires, refresh_expires = struct.unpack(">qqq", rest[:24])
    response_key, rest, tokens = rest[24:56], rest[56:], []
    for encoding in (flags & 3, flags >> 2):
        (length,) = struct.unpack(">H", rest[:2])
        tokens.append(token_text(encoding, rest[2 : 2 + length]))
        rest = rest[2 + length :]
    assert rest == b""
    return holds | {
        "refresh_from": refresh_from,
        "identity_expires": identity_expires,
        "refresh_expires": refresh_expires,
        "refresh_response_key": base64.b64encode(response_key).decode(),
        "advertising_token": tokens[0],
        "refresh_token": tokens[1],
    }


def parse_opt_out(plain: bytes) -> dict:
    flags, holds, rest = parse_login(plain)
    assert flags == 0 and len(rest) == 8
    return holds | {"until": struct.unpack(">q", rest)[0]}


def make() -> dict:
    key = hashlib.sha256(b"a cookie key for test vectors").digest()
    name, opt_out_name = "__Host-euid", "__Host-euid-optout"
    def stream(label: str, length: int) -> bytes:
        return hashlib.shake_128(label.encode()).digest(length)

    def identity(advertising: str, refresh: str) -> dict:
        return {
            "lineage": b64url(stream("lineage", 16)),
            "refresh_from": 1735690500000,
            "identity_expires": 1735693200000,
            "refresh_expires": 1735776000000,
            "refresh_response_key": base64.b64encode(stream("response key", 32)).decode(),
            "advertising_token": advertising,
            "refresh_token": refresh,
        }

    real_advertising = b64url(b"\x13\x80\x00\x00\x00\x65" + stream("advertising", 158))
    real_refresh = base64.b64encode(b"\x10\x00\x00\x00\x66" + stream("refresh", 286)).decode()
    good = [
        ("a real pair", identity(real_advertising, real_refresh)),
        ("tokens of an older form", identity(base64.b64encode(stream("v3", 164)).decode(), real_refresh)),
        ("tokens that are no base64", identity("opaque, also é", "!")),
        ("tokens that only look like base64", identity("AB", "AA=A")),
        ("a real pair, bound to a user", identity(real_advertising, real_refresh) | {"subject_of": "user 17, also é"}),
    ]
    opt_out = {"lineage": b64url(stream("lineage", 16)), "until": 1735949700000}
    opted_out = [("an opt-out", opt_out), ("an opt-out, bound to a user", opt_out | {"subject_of": "user 17, also é"})]
    vectors = []
    for purpose, kind, cookie, notes, plaintext in (
        (IDENTITY, "identity", name, good, write),
        (OPT_OUT, "opt_out", opt_out_name, opted_out, write_opt_out),
    ):
        for note, expected in notes:
            nonce = stream(note, 24)
            vectors.append({
                "note": note, "name": cookie, "nonce_hex": nonce.hex(), "plaintext_hex": plaintext(expected).hex(),
                "value": seal(key, cookie, nonce, plaintext(expected), purpose), kind: expected,
            })
    value = vectors[0]["value"]
    data = b64url_strict(value)
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    bad = [
        ("last bit of the tag flipped", b64url(flipped), "forged"),
        ("purpose 2", b64url(data[:1] + b"\x02" + data[2:]), "forged"),
        ("purpose 3", b64url(data[:1] + b"\x03" + data[2:]), "forged"),
        ("version 2", b64url(b"\x02" + data[1:]), "unknown"),
        ("another key's id", b64url(data[:2] + bytes(4) + data[6:]), "unknown"),
        ("cut by one character", value[:-1], "undecodable"),
        ("standard base64 padding", value + "=", "undecodable"),
        ("sealed for another name", seal(key, "euid", stream("other", 24), write(good[0][1])), "forged"),
        ("a byte too many", seal(key, name, stream("long", 24), write(good[0][1]) + b"\0"), "undecodable"),
        ("an unknown flag", seal(key, name, stream("flag", 24), bytes([write(good[0][1])[0] | 0x20]) + write(good[0][1])[1:]), "undecodable"),
    ]
    for note, value, outcome in bad:
        vectors.append({"note": note, "name": name, "value": value, "fails": outcome})
    # A record never opens as an identity, not even if it was sealed for the identity's name.
    record = seal(key, name, stream("swapped", 24), write_opt_out(opt_out), OPT_OUT)
    vectors.append({"note": "an opt-out sealed for the identity's name", "name": name, "value": record, "fails": "forged"})
    vectors.append({"note": "the same under its own name", "name": opt_out_name, "value": record, "fails": "forged"})
    return {
        "what": "Identity cookies as src/docs/cookie_format.md specifies them, made by tests/interop/cookie_format.py.",
        "key_b64": base64.b64encode(key).decode(), "key_id_hex": key_id(key).hex(), "vectors": vectors,
    }


def check(file: dict) -> int:
    key = base64.b64decode(file["key_b64"])
    assert key_id(key).hex() == file["key_id_hex"]
    for vector in file["vectors"]:
        expected = vector.get("identity", vector.get("opt_out", vector.get("fails")))
        if isinstance(expected, dict) and (user := expected.pop("subject_of", None)) is not None:
            expected["subject"] = subject(b64url_strict(expected["lineage"]), user).hex()
        try:
            outcome = open_(key, vector["name"], vector["value"])
        except LookupError:
            outcome = "unknown"
        except InvalidTag:
            outcome = "forged"
        except (ValueError, AssertionError):
            outcome = "undecodable"
        assert outcome == expected, (vector["note"], outcome)
        if "nonce_hex" in vector:
            purpose = IDENTITY if "identity" in vector else OPT_OUT
            plain = bytes.fromhex(vector["plaintext_hex"])
            again = seal(key, vector["name"], bytes.fromhex(vector["nonce_hex"]), plain, purpose)
            assert again == vector["value"], vector["note"]
    return len(file["vectors"])


def main() -> None:
    match sys.argv[1:]:
        case []:
            print(f"{check(json.loads(VECTORS.read_text()))} passed, 0 failed")
        case ["--write"]:
            VECTORS.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")
        case [key, name, value]:
            print(json.dumps(open_(base64.b64decode(key), name, value), indent=1))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
