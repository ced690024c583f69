"""What is no compact JWS in its one spelling, what is too long, and JSON that readers differ about."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable

from tests.jose.smith import E1, as_json, compact, sign, spell
from tests.jose.table import MOST, TYP, Table, next_letter


def _signed_as_written(head: str, body: str) -> str:
    message = f"{head}.{body}"
    return f"{message}.{spell(sign(E1, 'ES256', message.encode('utf-8', 'surrogatepass')))}"


def spelling(on: Table) -> None:
    def loose(raw: bytes) -> str:  # its last letter has spare bits
        return spell(raw + b" " * ((1 - len(raw)) % 3))

    head, body = loose(as_json(on.head())), loose(as_json(on.claims))
    good = _signed_as_written(head, body)
    signature = good.rpartition(".")[2]
    on.add("form/white-space-in-the-JSON", good)
    inserted = {
        "space": " ",
        "newline": "\n",
        "crlf": "\r\n",
        "tab": "\t",
        "nul": "\0",
        "plus": "+",
        "slash": "/",
        "padding-inside": "=",
        "star": "*",
        "percent": "%41",
        "e-acute": "é",
        "cyrillic-a": "\u0430",
        "full-width": "\uff21",
        "soft-hyphen": "\u00ad",
        "zero-width": "\u200b",
        "byte-order-mark": "\ufeff",
        "surrogate": "\ud800",
    }
    for name, text in inserted.items():
        for place, (one, two) in {"head": (head, body), "body": (body, head)}.items():
            broken = one[:8] + text + one[8:]
            pair = (broken, two) if place == "head" else (two, broken)
            on.add(f"form/{name}/in-{place}", _signed_as_written(*pair), "form")
        on.add(f"form/{name}/in-signature", f"{head}.{body}.{signature[:8]}{text}{signature[8:]}", "form")
        if name not in ("percent", "star"):
            on.add(f"form/{name}/after", good + text, "form")
            on.add(f"form/{name}/before", text + good, "form")
    for name, text in {"one-padding": "=", "padding": "==", "more-padding": "===="}.items():
        on.add(f"form/{name}/head", _signed_as_written(head + text, body), "form")
        on.add(f"form/{name}/body", _signed_as_written(head, body + text), "form")
        on.add(f"form/{name}/signature", good + text, "form")
    on.add("form/spare-bits/head", _signed_as_written(head[:-1] + next_letter(head[-1]), body), "form")
    on.add("form/spare-bits/body", _signed_as_written(head, body[:-1] + next_letter(body[-1])), "form")
    on.add("form/spare-bits/signature", good[:-1] + next_letter(good[-1]), "form")
    on.add("form/length/head", _signed_as_written(head + "AAA", body), "form")
    on.add("form/length/body", _signed_as_written(head, body + "AAA"), "form")
    on.add("form/length/signature", good + "AAA", "form")
    std = base64.b64encode(as_json(on.head(typ=TYP[on.kind], kid="e1"))).decode()
    on.add("form/standard-alphabet", _signed_as_written(std, body) if "=" in std else good + "=", "form")
    on.add("form/hex", ".".join(part.encode().hex() for part in good.split(".")), "json-head")
    segments = {
        "empty": "",
        "one": head,
        "two": f"{head}.{body}",
        "two-and-a-dot": f"{head}.{body}.",
        "four": f"{good}.{signature}",
        "four-empty": f"{good}.",
        "dot-before": f".{good}",
        "five-of-a-JWE": ".".join([spell(b'{"alg":"dir","enc":"A128GCM"}'), "", "AAAA", "AAAA", "AAAA"]),
        "five": f"{good}.{signature}.{signature}",
        "dots": "..",
        "dots-4": "...",
        "no-head": f".{body}.{signature}",
        "no-body": f"{head}..{signature}",
        "detached": _signed_as_written(head, ""),
        "one-dot-leader": good.replace(".", "\u2024"),
        "full-width-dots": good.replace(".", "\uff0e"),
        "doubled-dots": good.replace(".", ".."),
        "bearer": f"Bearer {good}",
        "quoted": f'"{good}"',
        "two-tokens": f"{good},{good}",
        "flattened-JSON": json.dumps({"protected": head, "payload": body, "signature": signature}),
        "general-JSON": json.dumps(
            {"payload": body, "signatures": [{"protected": head, "signature": signature}]}
        ),
        "unprotected-header": json.dumps({"header": on.head(), "payload": body, "signature": signature}),
        "json": json.dumps(on.claims),
        "sd-jwt": f"{good}~",
    }
    unlike = {"empty": "missing", "two-and-a-dot": "sig", "detached": "form"}
    for name, token in segments.items():
        on.add(f"form/segments/{name}", token, "form", app=unlike.get(name, "form"))
    nested = compact(on.head(), good.encode(), E1)
    on.add("form/nested", nested, "json")
    on.add("form/nested-with-cty", compact(on.head(cty="JWT"), good.encode(), E1), "header")


def size(on: Table) -> None:
    at_most = on.signed()
    room = MOST - len(at_most)
    filler = room * 3 // 4 - 12
    while len(token := compact(on.head(), on.claims | {"x": "x" * filler}, E1)) < MOST - 2:
        filler += 1
    on.add("size/at-most", token)
    on.add("size/more", compact(on.head(), on.claims | {"x": "x" * (filler + 4)}, E1), "size")
    on.add("size/head", compact(on.head(kid="e" * 13000), on.claims, E1), "size")
    on.add("size/a-megabyte", on.signed() + "A" * 2**20, "size")
    on.add("size/dots", "." * 2**20, "size")
    on.add("size/not-base64", "!" * (MOST + 1), "size")
    on.add("size/spaces-around", " " * MOST + on.signed(), "size")
    on.add("size/beyond-ASCII", "\U0001f600" * (MOST + 1), "size")


def strict_json(on: Table) -> None:
    payload, head = as_json(on.claims), as_json(on.head())

    def more(raw: bytes, member: bytes) -> bytes:
        return raw[:-1] + b"," + member + b"}"

    members = {
        "nan": b'"x":NaN',
        "infinity": b'"x":Infinity',
        "minus-infinity": b'"x":-Infinity',
        "1e999": b'"x":1e999',
        "-1e999": b'"x":-1e999',
        "5000-digits": b'"x":' + b"9" * 5000,
        "21-digits": b'"x":' + b"9" * 21,
        "lone-surrogate": b'"x":"\\ud800"',
        "lone-low-surrogate": b'"x":"\\udc00"',
        "surrogates-reversed": b'"x":"\\ude00\\ud83d"',
        "surrogate-in-a-name": b'"\\ud800":1',
        "surrogate-deep": b'"x":[{"y":["\\udfff"]}]',
        "surrogate-in-utf-8": b'"x":"\xed\xa0\x80"',
        "not-utf-8": b'"x":"\xff"',
        "overlong": b'"x":"\xc0\xae"',
        "latin-1": b'"x":"\xe9"',
        "deep-33": b'"x":' + b"[" * 33 + b"]" * 33,
        "deep-5000": b'"x":' + b"[" * 5000 + b"]" * 5000,
        "deep-objects": b'"x":' + b'{"a":' * 1500 + b"1" + b"}" * 1500,
        "comma-after": b'"x":1,',
        "single-quotes": b"'x':1",
        "unquoted": b"x:1",
        "comment": b'"x":1/* */',
        "leading-zero": b'"x":01',
        "plus": b'"x":+1',
        "hex": b'"x":0x1',
        "point-alone": b'"x":1.',
        "raw-newline": b'"x":"a\nb"',
        "raw-nul": b'"x":"a\0b"',
        "bad-escape": b'"x":"\\x41"',
        "true-in-capitals": b'"x":True',
        "undefined": b'"x":undefined',
        "name-twice": b'"x":1,"x":1',
        "name-twice-escaped": b'"x":1,"\\u0078":2',
        "name-twice-deep": b'"x":{"y":1,"y":2}',
        "name-twice-in-a-list": b'"x":[{"y":1,"y":2}]',
    }
    for name, member in members.items():
        on.add(f"json/{name}/payload", compact(head, more(payload, member), E1), "json")
        on.add(f"json/{name}/head", compact(more(head, member), payload, E1), "json-head")
    for name in on.claims:
        again = json.dumps(name).encode() + b":" + as_json(on.claims[name])
        on.add(f"json/twice/{name}", compact(head, more(payload, again), E1), "json")
        first = b"{" + json.dumps(name).encode() + b':"x",' + payload[1:]
        on.add(f"json/twice/{name}-other-first", compact(head, first, E1), "json")
    for name in ("alg", "kid", "typ"):
        for other in (b'"none"', b'"ES256"', b"null"):
            member = json.dumps(name).encode() + b":" + other
            on.add(
                f"json/head-twice/{name}-{other.decode()}",
                compact(more(head, member), payload, E1),
                "json-head",
            )
            first = b"{" + member + b"," + head[1:]
            on.add(f"json/head-twice/{name}-{other.decode()}-first", compact(first, payload, E1), "json-head")
    wholes: dict[str, Callable[[bytes], bytes]] = {
        "empty-text": lambda raw: b" ",
        "list": lambda raw: b"[" + raw + b"]",
        "string": lambda raw: json.dumps(raw.decode()).encode(),
        "number": lambda raw: b"7",
        "null": lambda raw: b"null",
        "true": lambda raw: b"true",
        "two-objects": lambda raw: raw + raw,
        "trailing-text": lambda raw: raw + b" x",
        "trailing-nul": lambda raw: raw + b"\0",
        "trailing-brace": lambda raw: raw + b"}",
        "leading-guard": lambda raw: b")]}'\n" + raw,
        "byte-order-mark": lambda raw: b"\xef\xbb\xbf" + raw,
        "utf-16": lambda raw: raw.decode().encode("utf-16"),
        "utf-16-be": lambda raw: raw.decode().encode("utf-16-be"),
        "utf-32": lambda raw: raw.decode().encode("utf-32-le"),
        "cut": lambda raw: raw[:-1],
        "deflated": zlib.compress,
        "form-feed": lambda raw: b"\x0c" + raw,
        "no-break-space": lambda raw: b"\xc2\xa0" + raw,
    }
    for name, change in wholes.items():
        on.add(f"json/whole/{name}/payload", compact(head, change(payload), E1), "json")
        on.add(f"json/whole/{name}/head", compact(change(head), payload, E1), "json-head")
    fine = {
        "deep-30": b'"x":' + b"[" * 30 + b"]" * 30,
        "escaped": b'"x":"\\ud83d\\ude00 \\u00e9"',
        "utf-8": '"x":"😀 é"'.encode(),
        "numbers": b'"x":[1e3,-2.5,0,-0,12345678901234567890]',
        "white-space": b' \r\n\t"x" : 1 ',
    }
    for name, member in fine.items():
        on.add(f"json/fine/{name}", compact(head, more(payload, member), E1))
