"""Each vector, shown to each verifier; and what PyJWT, and jose under Node, say of the same tokens."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.evidence import Tried
from tests.jose.table import CLIENT, ISSUER, JWKS, KINDS, Kind, Vector
from tests.jose.vectors import vectors
from tests.jose.verifiers import Verdict, verdicts
from ztproxy.adapters.jwt import ALGORITHMS

ROWS: dict[Kind, list[Vector]] = {kind: vectors(kind) for kind in KINDS}
NAMES: dict[Kind, str] = {
    "id": "ID tokens",
    "access": "Bearer tokens of services",
    "logout": "Logout tokens",
    "app": "Our own assertions, as apps read them",
}
TRIED = tuple(
    Tried(
        "Tokens",
        f"{NAMES[kind]}: algorithm, signature, key set, form, JSON, header and claims",
        len(rows),
        len(rows),
        "refused for the first rule it breaks, with nothing asked of the provider but its keys; the "
        f"{sum(not row.reason for row in rows)} good ones among them accepted",
    )
    for kind, rows in ROWS.items()
)

# Refused before a key is looked for, and so before anybody is asked for one.
AT_ONCE = {"size", "form", "header", "json-head", "typ", "missing"}


def family(row: Vector) -> str:
    return row.name.partition("/")[0]


FAMILIES = [
    pytest.param(kind, list(rows), id=f"{kind}-{name}")
    for kind in KINDS
    for name, rows in groupby(ROWS[kind], family)
]

_found: dict[Kind, dict[str, Verdict]] = {}


def verdict(kind: Kind, row: Vector) -> Verdict:
    if kind not in _found:
        _found[kind] = asyncio.run(verdicts(kind, ROWS[kind]))
    return _found[kind][row.name]


@pytest.mark.parametrize(("kind", "rows"), FAMILIES)
def test_vectors(kind: Kind, rows: list[Vector]) -> None:
    unlike = {}
    for row in rows:
        found = verdict(kind, row)
        right = row.reason in found.words if row.reason else not found.words
        # Keys may have been fetched, and once more for a name that is not among them.
        modest = found.asked.get("/jwks", 0) <= (0 if row.reason in AT_ONCE else 2)
        if not (right and modest and found.asked.keys() <= {"/jwks", "/.well-known/openid-configuration"}):
            unlike[row.name] = (row.reason or "accepted", found.words or "accepted", found.asked)
    assert not unlike


# -- a second opinion --


def pyjwt_accepts(row: Vector) -> bool:
    """Used as its documentation shows, with the key that the token names."""
    try:
        head = jwt.get_unverified_header(row.token)
        keys = jwt.PyJWKSet.from_json(row.jwks.decode()).keys
        key = next(one for one in keys if head.get("kid") in (None, one.key_id))
        timeless: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
        with warnings.catch_warnings(action="ignore"):  # it warns of a short key, and goes on
            jwt.decode(
                row.token, key.key, sorted(ALGORITHMS), audience=CLIENT, issuer=ISSUER, options=timeless
            )
    except (jwt.PyJWTError, ValueError, StopIteration, RecursionError):
        return False
    return True


def jose_accepts(rows: list[Vector]) -> list[bool]:
    """What jose under Node says, of the package that the tests of oidc-provider install."""
    root = Path(__file__).parents[2] / "build" / "node"
    node = shutil.which("node")
    if node is None or not (root / "node_modules" / "jose").is_dir():
        pytest.skip("there is no node, or oidc-provider was not installed by its tests yet")
    shown = json.dumps([{"token": row.token, "jwks": row.jwks.decode()} for row in rows])
    program = Path(__file__).with_name("second_opinion.mjs")
    said = subprocess.run(
        [node, str(program), str(root)], input=shown, capture_output=True, text=True, check=True, timeout=60
    )
    found: list[bool] = json.loads(said.stdout)
    return found


def of_form(rows: list[Vector]) -> list[Vector]:
    return [row for row in rows if family(row) != "claims"]


@pytest.mark.parametrize("kind", KINDS)
def test_pyjwt_accepts_the_good_ones(kind: Kind) -> None:
    assert [row.name for row in of_form(ROWS[kind]) if not row.reason and not pyjwt_accepts(row)] == []


@pytest.mark.node
def test_jose_accepts_the_good_ones() -> None:
    good = [row for row in of_form(ROWS["id"]) if not row.reason]
    refused = [row.name for row, accepted in zip(good, jose_accepts(good), strict=True) if not accepted]
    # It refuses a set for what is beside a good key, and a key that says it may sign as well.
    assert refused == ["keys/fine/key_ops-sign-and-verify", "keys/junk-beside"]


@pytest.mark.parametrize(
    "name",
    [
        "rsa-key/1024-bits",
        "ed25519/small-order-1",
        "form/padding/signature",
        "json/nan/payload",
        "json/lone-surrogate/payload",
        "json/whole/utf-16/payload",
        "json/twice/sub",
        "json/twice/aud-other-first",
        'json/head-twice/alg-"none"-first',
        "header/jwk",
        "header/jku",
        "header/crit-b64-true",
        "header/cty",
        "typ/logout+jwt",
        "ec-key/spare-bits",
        "keys/use-enc",
        "keys/key_ops-encrypt",
        "keys/private-d",
        "keys/kid-twice/another",
        "keys/65",
        "size/more",
    ],
)
def test_what_pyjwt_leaves_open_is_refused_here(name: str) -> None:
    """Good in every other respect: the library alone would have let it in."""
    (row,) = (row for row in ROWS["id"] if row.name == name)
    assert pyjwt_accepts(row)
    assert verdict("id", row).words


def test_a_key_of_small_order_would_verify_what_nobody_signed() -> None:
    forged = [row for row in ROWS["id"] if row.name.startswith("ed25519/small-order")]
    assert len(forged) == 16
    assert any(pyjwt_accepts(row) for row in forged)
    assert all(verdict("id", row).words == {"kid"} for row in forged)


def test_the_published_set_is_the_one_most_vectors_are_shown_with() -> None:
    for rows in ROWS.values():
        assert len(rows) > 500
        assert sum(row.jwks == JWKS for row in rows) > len(rows) / 2
