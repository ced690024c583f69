"""The server certificate of every measured proxy: P-256, for the names that a bench asks for.

One for each `Place`, made on first use, so that no proxy signs with a cheaper key than another.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

from bench.place import Place

NAMES = ("localhost", "app.localhost", "live.localhost", "transfer.localhost", "127.0.0.1")


class Certificate(NamedTuple):
    """PEM files: the certificate with its chain, its key, and who vouches for it."""

    chain: Path
    key: Path
    authority: Path

    def trusted(self) -> ssl.SSLContext:
        """A client's."""
        return ssl.create_default_context(cafile=str(self.authority))


def certificate(place: Place) -> Certificate:
    """The one of this place."""
    folder = place.folder / "certificates"
    found = Certificate(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)
        vouches = trustme.CA(key_type=trustme.KeyType.ECDSA)
        vouches.cert_pem.write_to_path(str(found.authority))
        server = vouches.issue_cert(*NAMES, key_type=trustme.KeyType.ECDSA)
        server.private_key_pem.write_to_path(str(found.key))
        found.key.chmod(0o600)
        for blob in server.cert_chain_pems:
            blob.write_to_path(str(found.chain), append=True)
    return found
