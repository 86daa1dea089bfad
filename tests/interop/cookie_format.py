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
import re
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = pathlib.Path(__file__).parent.parent / "vectors" / "cookie-format.json"
VERSION, IDENTITY, OPT_OUT = 1, 1, 2
SUBJECT = 0x10
NAMES = {"identity": "euid.", "record": "euid-optout."}
PREFIXES = ["__Host-", "__Secure-", ""]
TAG = re.compile(r"[A-Za-z0-9_-]{4}|sdk", re.ASCII)


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


def tag(lineage: str, migrated: bool = False) -> str:
    return "sdk" if migrated else lineage[:4]


def classify(prefix: str, name: str) -> tuple[str, str | None] | None:
    """The kind of one of the site's cookies, and its tag; `None` for any other cookie."""
    if name == f"{prefix}euid-login":
        return "anchor", None
    for kind, beginning in NAMES.items():
        end = name.removeprefix(prefix + beginning)
        if end != name and TAG.fullmatch(end):
            return kind, end
    return None


def login_of(anchor: str) -> str | None:
    """The lineage that an anchor names, or `None` if it says that no login counts. Fails for any other value."""
    if anchor == "none":
        return None
    if len(b64url_strict(anchor)) != 16:
        raise ValueError("not a lineage")
    return anchor


def open_(key: bytes, name: str, value: str) -> dict:
    purpose = OPT_OUT if "-optout." in name else IDENTITY
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

    def stream(label: str, length: int) -> bytes:
        return hashlib.shake_128(label.encode()).digest(length)

    lineage, stated = b64url(stream("lineage", 16)), b64url(stream("lineage of a stated opt-out", 16))
    name, opt_out_name = f"__Host-euid.{tag(lineage)}", f"__Host-euid-optout.{tag(lineage)}"

    def identity(advertising: str, refresh: str) -> dict:
        return {
            "lineage": lineage,
            "refresh_from": 1735690500000,
            "identity_expires": 1735693200000,
            "refresh_expires": 1735776000000,
            "refresh_response_key": base64.b64encode(stream("response key", 32)).decode(),
            "advertising_token": advertising,
            "refresh_token": refresh,
        }

    real_advertising = b64url(b"\x13\x80\x00\x00\x00\x65" + stream("advertising", 158))
    real_refresh = base64.b64encode(b"\x10\x00\x00\x00\x66" + stream("refresh", 286)).decode()
    real, user = identity(real_advertising, real_refresh), {"subject_of": "user 17, also é"}
    good = [
        ("a real pair", name, real),
        ("tokens of an older form", name, identity(base64.b64encode(stream("v3", 164)).decode(), real_refresh)),
        ("tokens that are no base64", name, identity("opaque, also é", "!")),
        ("tokens that only look like base64", name, identity("AB", "AA=A")),
        ("a real pair, bound to a user", name, real | user),
        ("a migrated identity", f"__Host-euid.{tag(lineage, True)}", real),
        ("a real pair, for a domain", f"__Secure-euid.{tag(lineage)}", real),
        ("a real pair, over plain http", f"euid.{tag(lineage)}", real),
    ]
    opt_out = {"lineage": lineage, "until": 1735949700000}
    opted_out = [
        ("an opt-out", opt_out_name, opt_out),
        ("an opt-out, bound to a user", opt_out_name, opt_out | user),
        ("an opt-out that the application states", f"__Host-euid-optout.{tag(stated)}", opt_out | {"lineage": stated}),
        ("the opt-out of a migrated identity", f"__Host-euid-optout.{tag(lineage, True)}", opt_out),
    ]
    vectors = []
    for purpose, kind, those, plaintext in (
        (IDENTITY, "identity", good, write),
        (OPT_OUT, "opt_out", opted_out, write_opt_out),
    ):
        for note, cookie, expected in those:
            nonce = stream(note, 24)
            vectors.append({
                "note": note, "name": cookie, "nonce_hex": nonce.hex(), "plaintext_hex": plaintext(expected).hex(),
                "value": seal(key, cookie, nonce, plaintext(expected), purpose), kind: expected,
            })
    value, plain = vectors[0]["value"], write(real)
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
        ("sealed for another prefix", seal(key, f"euid.{tag(lineage)}", stream("other", 24), plain), "forged"),
        ("sealed for a name without a tag", seal(key, "__Host-euid", stream("untagged", 24), plain), "forged"),
        ("a byte too many", seal(key, name, stream("long", 24), plain + b"\0"), "undecodable"),
        ("an unknown flag", seal(key, name, stream("flag", 24), bytes([plain[0] | 0x20]) + plain[1:]), "undecodable"),
    ]
    for note, value, outcome in bad:
        vectors.append({"note": note, "name": name, "value": value, "fails": outcome})
    # A value opens under the tag that it was sealed for, and under no other.
    for note, end in (
        ("a real pair under the tag of another login", tag(stated)),
        ("a real pair under the tag of a migrated identity", "sdk"),
        ("a real pair under a tag in lower case", tag(lineage).lower()),
        ("a real pair under a tag of five characters", lineage[:5]),
        ("a real pair under an empty tag", ""),
    ):
        vectors.append({"note": note, "name": f"__Host-euid.{end}", "value": vectors[0]["value"], "fails": "forged"})
    # A record never opens as an identity, not even if it was sealed for the identity's name.
    record = seal(key, name, stream("swapped", 24), write_opt_out(opt_out), OPT_OUT)
    vectors.append({"note": "an opt-out sealed for the identity's name", "name": name, "value": record, "fails": "forged"})
    vectors.append({"note": "the same under its own name", "name": opt_out_name, "value": record, "fails": "forged"})

    names = []
    for prefix in PREFIXES:
        for rest in (
            "euid-login", "euid.abcd", "euid.A0-_", "euid.sdk", "euid-optout.abcd", "euid-optout.sdk",
            "euid", "euid.", "euid.abc", "euid.abcde", "euid.ab.d", "euid.ab+d", "euid.sdkk", "euid.SDK", "EUID.abcd",
            "euid-login.abcd", "euid-logins", "euid-optout", "euid-optout.", "euid-optout.abc", "euid_advertising_token",
        ):
            kind, end = classify(prefix, prefix + rest) or (None, None)
            names.append({"prefix": prefix, "name": prefix + rest, "kind": kind, "tag": end})
    anchors = []
    for value in (lineage, "none", "", "None", lineage[:-1], lineage + "A", lineage[:-1] + "x", "!" + lineage[1:]):
        try:
            anchors.append({"value": value, "readable": True, "lineage": login_of(value)})
        except ValueError:
            anchors.append({"value": value, "readable": False})
    return {
        "what": "The cookies as src/docs/cookie_format.md specifies them, made by tests/interop/cookie_format.py.",
        "key_b64": base64.b64encode(key).decode(), "key_id_hex": key_id(key).hex(),
        "names": names, "anchors": anchors, "vectors": vectors,
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
            prefix = next(prefix for prefix in PREFIXES if vector["name"].startswith(prefix))
            kind, end = classify(prefix, vector["name"])
            assert kind == ("identity" if purpose == IDENTITY else "record"), vector["note"]
            assert end == tag(expected["lineage"], "migrated" in vector["note"]), vector["note"]
    for vector in file["names"]:
        outcome = classify(vector["prefix"], vector["name"]) or (None, None)
        assert outcome == (vector["kind"], vector["tag"]), vector
    for vector in file["anchors"]:
        try:
            outcome = {"readable": True, "lineage": login_of(vector["value"])}
        except ValueError:
            outcome = {"readable": False}
        assert vector == {"value": vector["value"]} | outcome, vector
    return sum(len(file[part]) for part in ("vectors", "names", "anchors"))


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
