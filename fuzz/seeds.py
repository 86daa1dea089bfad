"""Writes an initial corpus for each fuzz target, made from tests/vectors: python3 fuzz/seeds.py FOLDER"""

import base64
import hashlib
import json
import pathlib
import re
import struct
import sys
import urllib.parse

VECTORS = pathlib.Path(__file__).parent.parent / "tests" / "vectors"
MEMBERS = ["advertising_token", "refresh_token", "refresh_from", "identity_expires", "refresh_expires"]
KEY = base64.b64encode(bytes(range(32))).decode()


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text())


def cookie_header():
    for vector in vectors("cookie-format")["vectors"]:
        holds = vector.get("identity") or vector.get("opt_out") or {}
        anchor = holds.get("lineage", "none")
        rest_of_name = vector["name"][vector["name"].index("euid") :]
        for number, prefix in enumerate(["__Host-", "__Secure-", ""]):
            sealed, login = f"{prefix}{rest_of_name}={vector['value']}", f"{prefix}euid-login={anchor}"
            yield bytes([number]) + f"a=b; {sealed}; {login}".encode()
            yield bytes([number]) + f"{login}\n\t{sealed} ;{login};{sealed}".encode()
            yield bytes([number]) + f"{sealed}; {prefix}euid.sdk={vector['value']}".encode()
            if "identity" in vector:
                sdk = {"refresh_response_key": KEY} | {name: holds[name] for name in MEMBERS}
                yield bytes([number]) + f"{login}; __euid={urllib.parse.quote(json.dumps(sdk))}".encode()
            yield bytes([number]) + b"__euid={\"status\":\"optout\",\"refresh_expires\":5};__euid_advertising_token=AB"
            many = "; ".join(f"{prefix}euid.{tag}={tag}" for tag in ["abcd", "a", "sdk", "abcd", *map(str, range(1000, 1009))])
            yield bytes([number]) + f"{many}; {prefix}euid-login=1005{'A' * 18}".encode()
            yield bytes([number]) + f"x\xff=\"; {prefix}euid.abcd = a=b;{prefix}euid.sdk\n{prefix}euid-login=x".encode("latin-1")


def sealed():
    for vector in vectors("cookie-format")["vectors"]:
        yield b"\0" + vector["value"].encode()
        if "plaintext_hex" in vector:
            kind = 2 if "opt_out" in vector else 1
            yield bytes([kind, 1, 2]) + bytes.fromhex(vector["plaintext_hex"])


def answer():
    endpoints = {"generate": 0, "refresh": 1, "validate": 2}
    as_it_came, well_sealed, request = 0, 4, 3
    for capture in vectors("operator-captures")["captures"]:
        endpoint = endpoints.get(capture["name"].split("/")[0], 0)
        kind = {"text/plain": 8, "application/octet-stream": 16}.get(capture.get("response_content_type"), 0)
        body = base64.b64decode(capture.get("response_body_b64_of_bytes") or "") or capture["response_body"].encode()
        yield struct.pack(">BH", endpoint | as_it_came | kind, capture["status"]) + body
        if "response_json" in capture:
            yield struct.pack(">BH", endpoint | well_sealed | kind, 200) + (capture["response_json"] or "").encode()
    for vector in vectors("envelopes")["vectors"]:
        if vector["kind"] == "request":
            yield struct.pack(">BH", request, 0) + (vector.get("body") or "").encode()
            yield struct.pack(">BH", request | well_sealed, 0) + (vector.get("payload_utf8") or "").encode()
        else:
            endpoint = endpoints["refresh" if vector["kind"] == "refresh_response" else "generate"]
            yield struct.pack(">BH", endpoint | well_sealed, 200) + (vector.get("plaintext_json") or "").encode()


def dii():
    kinds = ["email", "phone", "email_hash", "phone_hash"]
    for vector in vectors("normalization")["vectors"]:
        yield bytes([kinds.index(vector["kind"])]) + vector["input"].encode()
        if vector.get("hash_hex"):
            yield bytes([2]) + vector["hash_hex"].encode()


def set_cookie():
    for vector in vectors("cookie-format")["vectors"]:
        if "identity" not in vector:
            continue
        identity = vector["identity"]
        times = [identity[name] for name in ("refresh_from", "identity_expires", "refresh_expires")]
        texts = ["example.com", "www.example.com", identity["advertising_token"], identity["refresh_token"], "17"]
        for how in (0x00, 0x02, 0x05, 0x12, 0x2A, 0x5E, 0x11):
            for what in (0x00, 0x80, 1, 2, 3, 4, 5, 6, 7):
                numbers = struct.pack(">BBqqqq", how, what, times[0] - 900_000, *times)
                yield numbers + b"\xff".join(text.encode() for text in texts)


def tcf():
    for case in vectors("consent")["cases"]:
        yield b"\0" + case["text"].encode()
        segments = [segment + "=" * (-len(segment) % 4) for segment in case["text"].split(".")]
        if all(re.fullmatch(r"[\w-]*={0,2}", segment, re.ASCII) for segment in segments):
            yield b"\1" + b".".join(base64.urlsafe_b64decode(segment) for segment in segments)


def command():
    nonce = "nonce=0123456789abcdef"
    for value in ("logout", "unused", f"login?{nonce}&email=user+tag%40example.com&subject=a+b%20c", "login?nonce=x&email=a@b"):
        yield b"\0" + value.encode()
    for vector in vectors("normalization")["vectors"]:
        yield b"\1" + f"{vector['kind']}={urllib.parse.quote(vector['input'])}&subject=17&consent=CPeh".encode()


def form():
    yield b"email=QZJ&subject=QZJ&QZJ=1"
    for vector in vectors("normalization")["vectors"]:
        yield f"{vector['kind']}={urllib.parse.quote(vector['input'])}&subject=Q+%F0%9F%98%80&consent=CPeh".encode()


for target in (cookie_header, sealed, answer, dii, set_cookie, tcf, command, form):
    folder = pathlib.Path(sys.argv[1]) / target.__name__
    folder.mkdir(parents=True, exist_ok=True)
    for seed in target():
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    print(f"{target.__name__}: {len(list(folder.iterdir()))} seeds")
