"""Members of a header that bring a key, name one oddly, or make the token another kind of token."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from tests.jose.smith import E1, E2, as_json, certificate, compact, jwk, sign, spell
from tests.jose.table import ISSUER, NOW, SPARE, Table


def members(on: Table) -> None:
    theirs, der = jwk(E2, "e1"), base64.b64encode(certificate(E2).tbs_certificate_bytes).decode()
    bring: dict[str, dict[str, Any]] = {
        "jwk": {"jwk": theirs},
        "jwk-ours": {"jwk": jwk(E1, "e1")},
        "jku": {"jku": "https://evil.test/jwks"},
        "jku-ours": {"jku": "https://op.test/jwks"},
        "jku-file": {"jku": "file:///dev/null"},
        "x5u": {"x5u": "https://evil.test/cert"},
        "x5c": {"x5c": [der]},
        "x5c-empty": {"x5c": []},
        "jwk-null": {"jwk": None},
        "crit-b64": {"crit": ["b64"], "b64": False},
        "crit-b64-true": {"crit": ["b64"], "b64": True},
        "crit-exp": {"crit": ["exp"], "exp": NOW + 9},
        "crit-unknown": {"crit": ["ext"]},
        "crit-empty": {"crit": []},
        "crit-text": {"crit": "exp"},
        "crit-null": {"crit": None},
        "crit-object": {"crit": {}},
        "crit-numbers": {"crit": [1]},
        "crit-registered": {"crit": ["alg"]},
        "crit-twice": {"crit": ["b64", "b64"], "b64": True},
        "crit-crit": {"crit": ["crit"]},
        "b64-false": {"b64": False},
        "b64-true": {"b64": True},
        "b64-text": {"b64": "false"},
        "zip": {"zip": "DEF"},
        "zip-none": {"zip": None},
        "cty": {"cty": "JWT"},
        "enc": {"enc": "A128GCM"},
        "epk": {"epk": theirs},
        "p2c": {"p2c": 2**31, "p2s": "AAAA"},
        "iss": {"iss": ISSUER},
        "nonce": {"nonce": "n"},
        "Alg": {"Alg": "none"},
        "alg-with-nul": {"alg\0": "none"},
        "proto": {"__proto__": {"alg": "none"}},
        "url": {"url": "https://evil.test"},
        "trust-chain": {"trust_chain": ["a.b.c"]},
    }
    for name, more in bring.items():
        for whose, key in (("", E1), ("-by-theirs", E2)):
            on.add(f"header/{name}{whose}", compact(on.head(**more), on.claims, key), "header")
    packed = compact(on.head(zip="DEF"), zlib.compress(as_json(on.claims))[2:-4], E1)
    on.add("header/zip-packed", packed, "header")
    # RFC 7797: the payload as it is, not spelled, signed as its rules say.
    raw = as_json(on.claims)
    text = spell(as_json(on.head(crit=["b64"], b64=False)))
    made = sign(E1, "ES256", text.encode() + b"." + raw)
    on.add("header/b64-signed-so", f"{text}.{spell(raw)}.{spell(made)}", "header")
    for name in ("x5t", "x5t#S256"):  # they name a certificate and bring none
        on.add(f"header/{name}", compact(on.head(**{name: "AAAA"}), on.claims, E1), "header", access="")

    wrong: dict[str, Any] = {
        "number": 7,
        "null": None,
        "true": True,
        "list": ["e1"],
        "object": {"kid": "e1"},
        "257": "e" * 257,
        "10-KiB": "e" * 10240,
    }
    for name, kid in wrong.items():
        on.add(f"kid/{name}", compact(on.head(kid=kid), on.claims, E1), "header")
    unknown = {
        "path": "../../../../dev/null",
        "windows-path": "..\\..\\nul",
        "url": "https://evil.test/jwks#e1",
        "sql": "e1' OR '1'='1",
        "sql-union": "x' UNION SELECT 'AAAA",
        "nul": "e1\0",
        "nul-before": "\0e1",
        "newline": "e1\n",
        "space": "e1 ",
        "capital": "E1",
        "cyrillic": "\u04351",
        "full-width": "\uff451",
        "combining": "e\u03011",
        "proto": "__proto__",
        "constructor": "constructor",
        "ldap": "*)(uid=*",
        "glob": "*",
        "regex": ".*",
        "shell": "$(id)",
        "template": "{{7*7}}",
        "ours-and-more": "e1,spare",
        "none": "none",
        "256": "e" * 256,
    }
    for name, kid in unknown.items():
        on.add(f"kid/{name}", compact(on.head(kid=kid), on.claims, E1), "kid")
    on.add("kid/empty", compact(on.head(kid=""), on.claims, E1), "kid", app="header")
    on.add("kid/surrogate", compact(on.head(kid="e1\ud800"), on.claims, E1), "json-head")
    on.add("kid/of-another-key", compact(on.head(kid="e1"), on.claims, E2), "sig")
    odd = {"long": "k" * 256, "path": "../../dev/null", "sql": "' OR 1=1 --", "nul": "k\0", "utf-8": "ключ"}
    for name, kid in odd.items():  # only a name
        published = as_json({"keys": [jwk(E1, kid), SPARE]})
        on.add(f"kid/published/{name}", compact(on.head(kid=kid), on.claims, E1), jwks=published)


def types(on: Table) -> None:
    any_case = {"access"}
    held: dict[Any, set[str]] = {
        ...: {"id", "access", "logout"},
        "JWT": {"id", "access", "logout", "app"},
        "jwt": any_case,
        "Jwt": any_case,
        "application/jwt": {"id", "access"},
        "application/JWT": any_case,
        "APPLICATION/JWT": any_case,
        "at+jwt": {"access"},
        "AT+JWT": any_case,
        "application/at+jwt": {"access"},
        "logout+jwt": {"logout"},
        "LOGOUT+JWT": set(),
        "application/logout+jwt": {"logout"},
    }
    never: list[Any] = [
        "",
        " ",
        "JWT ",
        " JWT",
        "JWT\0",
        "JWT;charset=utf-8",
        "JWS",
        "JOSE",
        "JWE",
        "JOSE+JSON",
    ]
    never += ["id_token", "at+JWT ", "application/application/jwt", "text/jwt", "secevent+jwt", "dpop+jwt"]
    never += [
        "entity-statement+jwt",
        "oauth-authz-req+jwt",
        "kb+jwt",
        "token-introspection+jwt",
        "ztproxy+jwt",
    ]
    never += ["ЈWT", "J\u200bWT", None, 7, True, ["JWT"], {"typ": "JWT"}]
    for typ in never:
        held[json.dumps(typ)] = set()
    for key, kinds in held.items():
        typ = json.loads(key) if not kinds and key != "LOGOUT+JWT" else key
        reason = "" if on.kind in kinds else "typ"
        name = "missing" if key is ... else str(key)
        on.add(f"typ/{name}", compact(on.head(typ=typ), on.claims, E1), reason)
