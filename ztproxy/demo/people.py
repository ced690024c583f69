"""The four visitors of the demo, and the three ways in which they can sign in.

What each may do is for ztproxy's policy to say; here they only have names and groups. A password is its
person's user name, and the one-time code is always `000000`: this is a demo.
"""

import hashlib
from dataclasses import dataclass

ONE_TIME_CODE = "000000"


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who can sign in at the demo's OpenID provider."""

    username: str
    name: str
    email: str
    groups: tuple[str, ...]

    @property
    def sub(self) -> str:
        """Opaque and stable: the same at every start, and it tells no application who it is."""
        return hashlib.sha256(f"ztproxy demo person {self.username}".encode()).hexdigest()[:32]

    @property
    def password(self) -> str:
        return self.username


@dataclass(frozen=True, slots=True)
class Method:
    """A way to sign in; `acr` and `amr` (RFC 8176) are what an ID token says of it."""

    id: str
    label: str
    acr: str
    amr: tuple[str, ...]


ALICE = Person("alice", "Alice Adams", "alice@example.com", ("engineering",))
BOB = Person("bob", "Bob Brown", "bob@example.com", ("finance",))
CAROL = Person("carol", "Carol Clark", "carol@example.com", ("admins",))
MALLORY = Person("mallory", "Mallory Moore", "mallory@example.com", ())

PEOPLE = (ALICE, BOB, CAROL, MALLORY)

# From the weakest to the strongest: the place in this tuple is the rank.
METHODS = (
    Method("pwd", "Password only", "urn:ztproxy:demo:pwd", ("pwd",)),
    Method("mfa", "Password and one-time code", "urn:ztproxy:demo:mfa", ("pwd", "otp", "mfa")),
    Method("phr", "Security key", "urn:ztproxy:demo:phr", ("hwk", "user")),
)
