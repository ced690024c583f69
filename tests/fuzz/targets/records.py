"""What is read back from the store and the journal: sessions, devices, locks, and the seals around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ztproxy.adapters import revocation_codec
from ztproxy.adapters.device_codec import pack_device, unpack_device
from ztproxy.adapters.sealing import Breach, SealBroken, Sealer
from ztproxy.adapters.session_codec import (
    MAX_AGENT,
    facts_of,
    pack,
    pack_seen,
    pack_session,
    unpack_handle,
    unpack_secrets,
    unpack_seen,
    unpack_session,
)

SERVER_KEY = b"fixture-server-key-0123456789abc"
SECRET = b"fixture-session-secret"
PLACE = b"ztp:session:1"
_SEALER = Sealer([SERVER_KEY])


def _comes_back(raw: bytes, read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Any:
    """What is in `raw`, or None; once written down anew it comes back to the last octet."""
    try:
        value = read(raw)
    except ValueError as refused:
        assert len(str(refused)) < 400
        return None
    written = write(value)
    assert write(read(written)) == written, "it does not come back as it was written"
    assert len(written) <= 10 * len(raw) + 1000
    return value


def session_record(data: bytes) -> None:
    """A session, its secrets, a handle or where it was seen: whole, or a `ValueError`."""
    session = _comes_back(data, lambda raw: unpack_session(raw, "s1", 3), pack_session)
    if session is not None:
        assert (session.id, session.revision) == ("s1", 3) and not facts_of(session).identity.claims
    secrets = _comes_back(data, unpack_secrets, pack)
    if secrets is not None:
        shown = repr(secrets)
        assert (
            not secrets.refresh_token or len(secrets.refresh_token) < 8 or secrets.refresh_token not in shown
        )
    handle = _comes_back(data, unpack_handle, pack)
    assert handle is None or "session_id" not in repr(handle)
    seen = _comes_back(data, unpack_seen, pack_seen)
    assert seen is None or len(unpack_seen(pack_seen(seen)).agent) <= MAX_AGENT


def device_record(data: bytes) -> None:
    """A device, or a `ValueError`."""
    device = _comes_back(data, lambda raw: unpack_device(raw, "d1", 2), pack_device)
    assert device is None or (device.id, device.revision) == ("d1", 2)


def lock_record(data: bytes) -> None:
    """An entry of the log, as the store and as the journal hold it, or a `ValueError`."""
    entry = _comes_back(data, lambda raw: revocation_codec.unpack(raw, 0, 7.0), revocation_codec.pack)
    if entry is not None:
        at, again = revocation_codec.read_line(revocation_codec.line(entry, 5.0))
        assert at == 5.0 and (again == entry or entry.made_at != entry.made_at)
    _comes_back(data, revocation_codec.read_line, lambda read: revocation_codec.line(read[1], read[0]))


def sealed(data: bytes) -> None:
    """Opens for nobody who did not seal it, and says nothing of the secret; what was sealed opens."""
    try:
        _SEALER.open(SECRET, PLACE, data)
    except SealBroken as broken:
        assert str(broken) in {breach.value for breach in Breach}
    else:
        raise AssertionError("a seal was forged")
    closed = _SEALER.seal(SECRET, PLACE, data)
    assert _SEALER.open(SECRET, PLACE, closed) == data and len(closed) == len(data) + 37
    for secret, place in ((SECRET + b"x", PLACE), (SECRET, PLACE + b"x")):
        try:
            _SEALER.open(secret, place, closed)
        except SealBroken as broken:
            assert broken.breach is Breach.TAMPERED
        else:
            raise AssertionError("it opens with another secret, or elsewhere")
