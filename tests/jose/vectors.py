"""All vectors of one kind of token; what a vector is stands in `table`."""

from __future__ import annotations

from tests.jose.algorithms import no_algorithm, swapped, symmetric
from tests.jose.claims import claims
from tests.jose.forms import size, spelling, strict_json
from tests.jose.headers import members, types
from tests.jose.key_sets import elliptic_keys, key_sets
from tests.jose.signatures import ecdsa, ed25519_vectors, rsa_keys, rsa_signatures
from tests.jose.table import Group, Kind, Table, Vector

GROUPS: tuple[Group, ...] = (
    no_algorithm,
    symmetric,
    swapped,
    ecdsa,
    rsa_signatures,
    rsa_keys,
    ed25519_vectors,
    spelling,
    size,
    strict_json,
    members,
    types,
    elliptic_keys,
    key_sets,
    claims,
)


def vectors(kind: Kind) -> list[Vector]:
    table = Table(kind)
    for group in GROUPS:
        group(table)
    return list(table.rows.values())
