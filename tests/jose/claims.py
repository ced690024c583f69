"""The claims of a signed token, one wrong at a time, for each kind of token in whose verifier they count.

A row is a name, what is changed in good claims (`...` leaves one out), and by kind the word for the refusal:
the claim's name for what the core reads, a word of `Rejection` for `ztproxy.verify`; "" where it is accepted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.jose.smith import E1, compact
from tests.jose.table import CLIENT, EVENT, ISSUER, NONCE, NOW, Kind, Table


class Row(NamedTuple):
    name: str
    changes: dict[str, Any]
    reasons: dict[Kind, str]


def everywhere(word: str, app: str | None = None) -> dict[Kind, str]:
    return {"id": word, "access": word, "logout": word, "app": (word and "claims") if app is None else app}


def issuers() -> list[Row]:
    odd: dict[str, Any] = {
        "another": "https://evil.test",
        "slash": ISSUER + "/",
        "capital-host": "https://OP.test",
        "port": "https://op.test:443",
        "suffixed": ISSUER + ".evil.test",
        "prefixed": "https://evil.test/https://op.test",
        "user": "https://op.test@evil.test",
        "part": ISSUER[:-1],
        "http": "http://op.test",
        "space": ISSUER + " ",
        "nul": ISSUER + "\0",
        "query": ISSUER + "?",
        "cyrillic": "https://\u043ep.test",
    }
    wrong: dict[str, Any] = {
        "missing": ...,
        "null": None,
        "empty": "",
        "list": [ISSUER],
        "object": {ISSUER: 1},
        "number": 7,
        "true": True,
    }
    rows = [Row(f"iss/{name}", {"iss": iss}, everywhere("iss", "issuer")) for name, iss in odd.items()]
    return rows + [Row(f"iss/{name}", {"iss": iss}, everywhere("iss")) for name, iss in wrong.items()]


def audiences() -> list[Row]:
    odd = {
        "another": "other",
        "longer": CLIENT + "x",
        "part": CLIENT[:-1],
        "capital": "ZTP",
        "space": "ztp ",
        "pair": "ztp other",
    }
    rows = [Row(f"aud/{name}", {"aud": aud}, everywhere("aud", "audience")) for name, aud in odd.items()]
    wrong: dict[str, Any] = {
        "missing": ...,
        "null": None,
        "number": 7,
        "true": True,
        "object": {CLIENT: 1},
        "empty": "",
        "empty-list": [],
        "list-of-others": ["a", "b"],
        "list-with-a-number": [CLIENT, 7],
        "list-with-null": [CLIENT, None],
        "list-in-a-list": [[CLIENT]],
        "list-with-an-object": [CLIENT, {}],
    }
    rows += [Row(f"aud/{name}", {"aud": aud}, everywhere("aud")) for name, aud in wrong.items()]
    several: dict[Kind, str] = {"id": "aud", "access": "", "logout": "", "app": "claims"}
    rows += [
        Row("aud/list", {"aud": [CLIENT]}, everywhere("") | {"app": "claims"}),
        Row("aud/J44-two", {"aud": [CLIENT, "other"]}, several),
        Row("aud/J45-two-and-azp", {"aud": [CLIENT, "other"], "azp": CLIENT}, several),
    ]
    for name, azp in {
        "other": "other",
        "number": 7,
        "null": None,
        "list": [CLIENT],
        "empty": "",
        "capital": "ZTP",
    }.items():
        rows.append(Row(f"azp/{name}", {"azp": azp}, {"id": "azp"}))
    rows.append(Row("azp/ours", {"azp": CLIENT}, {"id": ""}))
    return rows


def times() -> list[Row]:
    wrong: dict[str, Any] = {
        "missing": ...,
        "null": None,
        "text": str(NOW),
        "date": "2023-11-14T22:13:20Z",
        "true": True,
        "list": [NOW],
        "object": {},
        "negative": -1,
        "1e300": 1e300,
        "milliseconds-of-4000-AD": 2**41,
        "20-digits": 10**19,
    }
    rows = [
        Row(f"{name}/{how}", {name: value}, everywhere(name))
        for how, value in wrong.items()
        for name in ("iat", "exp")
    ]
    # A time of many digits that an app reads is far away, and not of a wrong form.
    unlike = {"iat/milliseconds-of-4000-AD": "claims", "iat/20-digits": "claims", "iat/1e300": "claims"}
    unlike |= {"exp/milliseconds-of-4000-AD": "", "exp/20-digits": ""}
    rows = [row._replace(reasons=row.reasons | {"app": unlike.get(row.name, "claims")}) for row in rows]
    bounds: list[Row] = [
        Row("iat/ahead-59", {"iat": NOW + 59}, everywhere("") | {"app": "not_yet_valid"}),
        Row("iat/ahead-30", {"iat": NOW + 30}, everywhere("")),
        Row("iat/ahead-31", {"iat": NOW + 31}, everywhere("") | {"app": "not_yet_valid"}),
        Row("iat/ahead-61", {"iat": NOW + 61}, everywhere("iat", "not_yet_valid")),
        Row("iat/J50-ahead-120", {"iat": NOW + 120}, everywhere("iat", "not_yet_valid")),
        Row("iat/FI33-behind-90", {"iat": NOW - 90}, everywhere("")),
        Row("iat/behind-660", {"iat": NOW - 660}, everywhere("") | {"logout": "exp"}),
        Row("iat/J50-behind-900", {"iat": NOW - 900}, everywhere("") | {"id": "iat", "logout": "exp"}),
        Row("iat/a-year-behind", {"iat": NOW - 31_536_000}, everywhere("iat", "") | {"logout": "exp"}),
        Row("exp/J51-61-ago", {"exp": NOW - 61, "iat": NOW - 120}, everywhere("exp", "expired")),
        Row("exp/60-ago", {"exp": NOW - 60, "iat": NOW - 120}, everywhere("exp", "expired")),
        Row("exp/59-ago", {"exp": NOW - 59, "iat": NOW - 120}, everywhere("") | {"app": "expired"}),
        Row("exp/29-ago", {"exp": NOW - 29, "iat": NOW - 120}, everywhere("")),
        Row("exp/before-iat", {"exp": NOW - 2, "iat": NOW - 1}, everywhere("exp")),
        Row("exp/fraction", {"exp": NOW + 9.5}, everywhere("") | {"app": "claims"}),
        Row("iat/fraction", {"iat": NOW - 9.5}, everywhere("") | {"app": "claims"}),
    ]
    for how, value in wrong.items():
        if how != "missing":
            rows.append(Row(f"nbf/{how}", {"nbf": value}, {"id": "nbf", "access": "nbf", "logout": "nbf"}))
    ours: tuple[Kind, ...] = ("id", "access", "logout")
    bounds += [
        Row("nbf/J52-ahead-120", {"nbf": NOW + 120}, dict.fromkeys(ours, "nbf")),
        Row("nbf/ahead-61", {"nbf": NOW + 61}, dict.fromkeys(ours, "nbf")),
        Row("nbf/ahead-60", {"nbf": NOW + 60}, dict.fromkeys(ours, "")),
        Row("nbf/past", {"nbf": 0}, dict.fromkeys(ours, "")),
    ]
    return rows + bounds


def subjects() -> list[Row]:
    odd: dict[str, Any] = {
        "null": None,
        "number": 7,
        "true": True,
        "list": ["alice"],
        "object": {"id": "alice"},
        "empty": "",
        "256": "a" * 256,
        "newline": "alice\n",
        "nul": "alice\0",
        "cr-lf-header": "alice\r\nX-Admin: 1",
        "space-before": " alice",
        "space-after": "alice ",
        "space": " ",
        "e-acute": "alicé",
        "cyrillic": "аlice",
        "zero-width": "ali\u200bce",
        "right-to-left": "\u202eecila",
        "delete": "alice\x7f",
    }
    app = {
        "null": "claims",
        "number": "claims",
        "true": "claims",
        "list": "claims",
        "object": "claims",
        "empty": "claims",
    }
    rows = []
    for name, sub in odd.items():
        reasons: dict[Kind, str] = {"id": "sub", "access": "sub", "logout": "sub"}
        if name in app:
            reasons["app"] = "claims"
        rows.append(Row(f"sub/{name}", {"sub": sub}, reasons))
    rows.append(
        Row("sub/missing", {"sub": ...}, {"id": "sub", "access": "sub", "app": "claims", "logout": ""})
    )
    rows.append(Row("sub/255", {"sub": "a" * 255}, everywhere("")))
    rows.append(Row("sub/inner-space", {"sub": "alice smith"}, everywhere("")))
    return rows


def sign_in_claims() -> list[Row]:
    def only(word: str) -> dict[Kind, str]:
        return {"id": word}

    wrong: dict[str, Any] = {"missing": ..., "null": None, "empty": "", "number": 7, "list": [NONCE]}
    wrong |= {"object": {}, "true": True, "another": "m" * 43, "longer": NONCE + "n", "shorter": NONCE[:-1]}
    wrong |= {"capital": NONCE.upper(), "space": NONCE + " ", "nul": NONCE + "\0"}
    rows = [Row(f"nonce/{name}", {"nonce": value}, only("nonce")) for name, value in wrong.items()]
    for name in ("at_hash", "s_hash"):
        odd: dict[str, Any] = {
            "J57-wrong": "A" * 22,
            "empty": "",
            "null": None,
            "number": 7,
            "list": [],
            "padded": "AAAA==",
        }
        rows += [Row(f"{name}/{how}", {name: value}, only(name)) for how, value in odd.items()]
    rows.append(Row("at_hash/J58-absent", {}, only("")))
    # Core 3.1.3.6 lets `c_hash` be in the hybrid flow alone: we ask for none, and nothing hangs on one.
    rows.append(Row("c_hash/any", {"c_hash": "AAAA"}, only("")))
    for name in ("sid", "acr"):
        malformed = {"number": 7, "list": ["a"], "object": {}, "true": True, "empty": "", "256": "x" * 256}
        malformed |= {"10-KiB": "x" * 10240, "newline": "a\nb", "nul": "a\0", "e-acute": "é"}
        rows += [
            Row(f"{name}/{how}", {name: value}, {"id": name, "access": name})
            for how, value in malformed.items()
        ]
    for how, value in {
        "text": "now",
        "null": None,
        "true": True,
        "negative": -1,
        "list": [NOW],
        "ahead": NOW + 61,
    }.items():
        rows.append(Row(f"auth_time/{how}", {"auth_time": value}, {"id": "auth_time", "access": "auth_time"}))
    addresses = {
        "J74-two-ats": "alice@corp.test@evil.test",
        "J74-quoted": '"a@corp.test"@evil.test',
        "J74-percent-nul": "a@corp.test%00@evil.test",
        "J74-newline": "a@evil.test\n@corp.test",
        "J75-dot-after": "a@corp.test.",
        "J75-full-width": "a@ｃorp.test",
        "comment": "a(x)@corp.test",
        "literal": "a@[127.0.0.1]",
        "source-route": "<@a.test:b@corp.test>",
        "no-local": "@corp.test",
        "no-domain": "a@",
        "space": "a @corp.test",
        "comma": "a@corp.test,b@evil.test",
        "nul": "a@corp.test\0",
        "long": "a@" + "b" * 300 + ".test",
        "list": ["a@corp.test"],
        "number": 7,
    }
    for how, address in addresses.items():
        rows.append(
            Row(
                f"email/{how}", {"email": address, "email_verified": True}, {"id": "email", "access": "email"}
            )
        )
    # What only describes is left out, and never read as something else (J64, J67).
    ignored: dict[str, dict[str, Any]] = {
        "J64-groups-text": {"groups": "admin"},
        "J64-groups-object": {"groups": {"admin": 1}},
        "J64-groups-null-in-it": {"groups": ["admin", None]},
        "J67-claims-elsewhere": {
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://evil.test/claims", "access_token": "x"}},
        },
        "J67-aggregated": {"_claim_names": {"groups": "s"}, "_claim_sources": {"s": {"JWT": "a.b.c"}}},
        "email-not-verified": {"email": "a@b@c", "email_verified": "true"},
        "name-with-a-newline": {"name": "a\nb"},
        "amr-text": {"amr": "mfa"},
    }
    rows += [Row(f"left-out/{how}", changes, only("")) for how, changes in ignored.items()]
    return rows


def service_claims() -> list[Row]:
    rows = [
        Row(f"of-another-kind/{name}", {name: value}, {"access": name})
        for name, value in {
            "nonce": NONCE,
            "at_hash": "A",
            "c_hash": "A",
            "s_hash": "A",
            "events": {EVENT: {}},
        }.items()
    ]
    bound: dict[str, Any] = {
        "null": None,
        "text": "x",
        "empty": {},
        "jkt": {"jkt": "x"},
        "both": {"jkt": "x", "x5t#S256": "y"},
    }
    bound |= {"list": [], "number": {"x5t#S256": 7}, "thumbprint-empty": {"x5t#S256": ""}}
    rows += [Row(f"cnf/{name}", {"cnf": cnf}, {"access": "cnf"}) for name, cnf in bound.items()]
    scopes: dict[str, Any] = {
        "number": 7,
        "object": {},
        "true": True,
        "list-with-a-number": ["a", 7],
        "two-spaces": "a  b",
        "newline": "a\nb",
        "quote": 'a"b',
    }
    rows += [Row(f"scope/{name}", {"scope": scope}, {"access": "scope"}) for name, scope in scopes.items()]
    return rows


def logout_claims() -> list[Row]:
    events: dict[str, Any] = {
        "missing": ...,
        "null": None,
        "list": [EVENT],
        "text": EVENT,
        "empty": {},
        "another": {"urn:x": {}},
    }
    events |= {"event-null": {EVENT: None}, "event-list": {EVENT: []}, "event-true": {EVENT: True}}
    events |= {
        "capital": {EVENT.upper(): {}},
        "slash": {EVENT + "/": {}},
        "https": {EVENT.replace("http:", "https:"): {}},
    }
    rows = [Row(f"events/{name}", {"events": value}, {"logout": "events"}) for name, value in events.items()]
    for name, nonce in {"text": "n", "null": None, "empty": "", "false": False}.items():
        rows.append(Row(f"a-nonce/{name}", {"nonce": nonce}, {"logout": "nonce"}))
    jtis = {
        "missing": ...,
        "null": None,
        "number": 7,
        "list": ["j"],
        "empty": "",
        "1025": "j" * 1025,
        "true": True,
    }
    rows += [Row(f"jti/{name}", {"jti": jti}, {"logout": "jti"}) for name, jti in jtis.items()]
    sids: dict[str, Any] = {
        "number": 7,
        "null": None,
        "empty": "",
        "list": ["i-1"],
        "256": "x" * 256,
        "newline": "i-1\n",
        "e-acute": "é",
    }
    rows += [Row(f"sid/{name}-of-a-logout", {"sid": sid}, {"logout": "sid"}) for name, sid in sids.items()]
    rows += [
        Row("sid/neither", {"sid": ..., "sub": ...}, {"logout": "sid"}),
        Row("sid/alone", {"sub": ...}, {"logout": ""}),
        Row("sid/left-out", {"sid": ...}, {"logout": ""}),
        Row("exp/an-hour", {"exp": NOW + 3600}, {"logout": ""}),
    ]
    return rows


def app_claims() -> list[Row]:
    texts = ("sid", "email", "name", "preferred_username", "acr", "idp", "device", "scope")
    wrong: dict[str, Any] = {"number": 7, "null": None, "list": ["a"], "object": {}, "true": True}
    rows = [
        Row(f"app/{name}-{how}", {name: value}, {"app": "claims"})
        for name in texts
        for how, value in wrong.items()
    ]
    lists: dict[str, Any] = {"text": "admins", "null": None, "object": {"admins": 1}, "number": 7}
    lists |= {"with-null": ["a", None], "with-a-number": ["a", 7], "with-a-list": [["admins"]]}
    rows += [
        Row(f"app/{name}-{how}", {name: v}, {"app": "claims"})
        for name in ("groups", "amr")
        for how, v in lists.items()
    ]
    rows += [
        Row(f"app/auth_time-{how}", {"auth_time": v}, {"app": "claims"})
        for how, v in {"text": "1", "null": None, "true": True, "fraction": 1.5}.items()
    ]
    rows += [
        Row(f"app/jti-{how}", {"jti": v}, {"app": "claims"})
        for how, v in {"missing": ..., "empty": "", "number": 7}.items()
    ]
    rows.append(Row("app/exp-is-iat", {"exp": NOW - 1}, {"app": "claims"}))
    rows.append(
        Row("app/everything", {"groups": ["a", "é"], "amr": [], "auth_time": 0, "email": "a@b"}, {"app": ""})
    )
    return rows


GROUPS = (issuers, audiences, times, subjects, sign_in_claims, service_claims, logout_claims, app_claims)


def claims(on: Table) -> None:
    for group in GROUPS:
        for row in group():
            if on.kind in row.reasons:
                changed = {**on.claims, **row.changes}
                shown = {name: value for name, value in changed.items() if value is not ...}
                on.add(f"claims/{row.name}", compact(on.head(), shown, E1), row.reasons[on.kind])
