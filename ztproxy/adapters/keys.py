"""Key rings: one private file with the keys that sign handles, seal records and sign assertions.

Knows: the file's form, its mode, what a usable key is. Promises: a ring whose every key has the right size,
or an `OperatorError` that names file, line and mend; a `repr` without secrets; a file that is written whole
or not at all, mode 0600, and never over another unless asked. Leaves to the caller: carrying the same file to
every node before the next rotation, and telling the running workers to read it again.

In each list the first key is in use, and all are accepted. The last one is next: a rotation puts it first and
brings another that waits its turn. So no node ever meets what was made with a key it has not been told of,
however late it reads the file, and nobody is signed out by a rotation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from ztproxy.errors import OperatorError, Place

KEY_BYTES = 32
PAST = 2  # keys of each kind that a rotation leaves to open what they made
_MAX_FILE_BYTES = 64 * 1024
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

_Key = TypeVar("_Key")

_HEAD = """\
# The keys of ztproxy. Whoever reads this file can forge sessions and assertions: keep it at mode 0600, the
# same on every node, and out of version control. In each list the first key is in use, the last one is next,
# and all are accepted. Losing the file signs everyone out and does no other harm.
"""
_NOTES = {
    "handles": "# Sign the session cookie (HMAC-SHA256; 32 random bytes in base64url).",
    "records": "# Seal what is kept in Redis (AES-256-GCM; 32 random bytes in base64url).",
    "assertions": "# Sign the assertion that apps verify (ES256, P-256); apps fetch its public half.",
}


@dataclass(frozen=True, slots=True)
class AssertionKey:
    """A P-256 private key and the `kid` by which apps find its public half."""

    kid: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys, current first; each tuple holds at least one."""

    handles: tuple[bytes, ...] = field(repr=False)
    records: tuple[bytes, ...] = field(repr=False)
    assertions: tuple[AssertionKey, ...]

    @staticmethod
    def load(path: Path) -> KeyRing:
        """The ring in the file at `path`. Raises `OperatorError` with the place of what is wrong."""
        return parse(_read_private(path), str(path))


def fresh_keys() -> str:
    """The text of a new key file: two random keys of each kind, one in use and one that is next."""
    return _render(
        [_random(), _random()], [_random(), _random()], [_new_assertion_key(), _new_assertion_key()]
    )


def rotate(text: str, file: str = "") -> str:
    """The text of the same file after a rotation: in each list the next key comes into use, the one used
    before and one more stay, and a new one is next. A list of one keeps it in use and gets a next one."""
    ring = parse(text, file)
    return _render(
        _turned(ring.handles, _random()),
        _turned(ring.records, _random()),
        _turned(ring.assertions, _new_assertion_key()),
    )


def _turned(keys: Sequence[_Key], fresh: _Key) -> list[_Key]:
    return [keys[-1], *keys[:-1][:PAST], fresh]


def write_private(path: Path, text: str, *, replace: bool = False) -> None:
    """Writes `text` to `path`, 0600, whole or not at all; over an existing file only with `replace`.

    Raises `OperatorError` when the file is there already or the directory cannot be written.
    """
    try:
        # mkstemp gives 0600 whatever the umask, so that there is no moment at which another user can open it.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                Path(name).replace(path)
            else:
                # A hard link fails on an existing name, where a rename would silently win the race.
                os.link(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        _sync_directory(path.parent)
    except FileExistsError:
        problem = f"`{path}` exists already"
        raise OperatorError(problem, "move it away first", Place(str(path), 0, "")) from None
    except OSError as error:
        raise OperatorError(f"cannot be written: {_said(error)}", place=Place(str(path), 0, "")) from error


def parse(text: str, file: str) -> KeyRing:
    """The ring in `text`; `file` is the name shown in errors. Raises `OperatorError`."""
    try:
        document = YAML(typ="rt", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(file, mark.line + 1 if mark else 0, "")
        raise OperatorError("not readable as YAML", "restore the file or write new keys", place) from None
    if not isinstance(document, CommentedMap):
        problem = "the file holds no keys"
        raise OperatorError(problem, "`ztproxy init` writes a new one", Place(file, 0, ""))
    for name in document:
        if name not in _NOTES:
            place = Place(file, document.lc.key(name)[0] + 1, str(name))
            raise OperatorError("unknown key", f"write one of {', '.join(_NOTES)}", place)
    return KeyRing(
        tuple(_secret(item, place) for item, place in _items(document, "handles", file)),
        tuple(_secret(item, place) for item, place in _items(document, "records", file)),
        _assertion_keys(document, file),
    )


def _items(document: CommentedMap, name: str, file: str) -> list[tuple[Any, Place]]:
    listed = document.get(name)
    if not isinstance(listed, CommentedSeq) or not listed:
        line = document.lc.key(name)[0] + 1 if name in document else 0
        place = Place(file, line, name)
        raise OperatorError("needs a list of at least one key", "see the top of the file", place)
    return [(item, Place(file, listed.lc.item(i)[0] + 1, f"{name}.{i}")) for i, item in enumerate(listed)]


def _secret(item: Any, place: Place) -> bytes:
    # The text itself is never quoted in an error: it may be a key with a single wrong letter.
    try:
        raw = base64.b64decode(item + "=", altchars=b"-_", validate=True) if isinstance(item, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise OperatorError("not a key", f"write {KEY_BYTES} random bytes in base64url, 43 letters", place)
    return raw


def _assertion_key(item: Any, place: Place) -> AssertionKey:
    if not isinstance(item, CommentedMap) or set(item) != {"kid", "pem"}:
        raise OperatorError("not an assertion key", "write `kid` and `pem`", place)
    kid, pem = item["kid"], item["pem"]
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise OperatorError("`kid` is not a name", "write 1 to 64 letters, digits, `-` or `_`", place)
    private: object
    try:
        private = serialization.load_pem_private_key(str(pem).encode(), password=None)
    except (ValueError, TypeError):  # not PEM, damaged, or encrypted
        private = None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise OperatorError("`pem` is not an unencrypted P-256 private key", "write PKCS 8 PEM", place)
    return AssertionKey(kid, private)


def _assertion_keys(document: CommentedMap, file: str) -> tuple[AssertionKey, ...]:
    keys = tuple(_assertion_key(item, place) for item, place in _items(document, "assertions", file))
    # Two keys under one `kid` leave it to each app which of them it believes.
    if len({key.kid for key in keys}) != len(keys):
        raise OperatorError("two keys share a `kid`", "rename one", Place(file, 0, "assertions"))
    return keys


def _read_private(path: Path) -> str:
    place = Place(str(path), 0, "")
    try:
        # The mode is asked of the open file, not of the name, which could be exchanged in between; and a pipe
        # in its place must not keep us waiting.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OperatorError("not a file", "name the key file", place)
            if status.st_mode & 0o077:
                mode = f"{stat.S_IMODE(status.st_mode):04o}"
                problem = f"its mode {mode} lets others read the keys"
                raise OperatorError(problem, f"run `chmod 600 {path}`", place)
            text = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise OperatorError("there is no key file", "`ztproxy init` writes one", place) from None
    except UnicodeDecodeError:
        raise OperatorError("not text", "restore the file or write new keys", place) from None
    except OSError as error:
        raise OperatorError(f"cannot be read: {_said(error)}", place=place) from error
    if len(text) > _MAX_FILE_BYTES:
        raise OperatorError("too large for a key file", "name the key file", place)
    return text


def _said(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _random() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _new_assertion_key() -> AssertionKey:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # Named after the key itself, so that two nodes can never give one name to two keys.
    return AssertionKey(_letters(hashlib.sha256(public).digest()[:12]), private)


def _letters(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _render(handles: Sequence[bytes], records: Sequence[bytes], assertions: Sequence[AssertionKey]) -> str:
    lines = [_HEAD]
    for name, raw_keys in (("handles", handles), ("records", records)):
        lines += [_NOTES[name], f"{name}:", *(f'  - "{_letters(raw)}"' for raw in raw_keys), ""]
    lines += [_NOTES["assertions"], "assertions:"]
    for key in assertions:
        pem = key.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii")
        lines += [f'  - kid: "{key.kid}"', "    pem: |", *(f"      {line}" for line in pem.splitlines())]
    return "\n".join(lines) + "\n"
