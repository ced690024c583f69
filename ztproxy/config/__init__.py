"""YAML, environment and secret files into frozen objects, once, at load or reload.

The way of a configuration: `source` reads the text (values with their lines), the models in `document`,
`route`, `policy`, `provider` and `upstream` give it its shape, `compile` its sense, and `settings` is what
comes out. A mistake anywhere is one line `file:line: key: what is wrong, what to write`, and all of them come
at once.

Promises: `load` answers `Settings` or raises an `OperatorError`; it changes nothing, so a reload that fails
leaves what was loaded before as it was. `watch` says when to load again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ztproxy.config.compile import compile_document
from ztproxy.config.document import Document
from ztproxy.config.mistakes import ConfigErrors, from_validation
from ztproxy.config.settings import Settings
from ztproxy.config.source import MAX_BYTES, read
from ztproxy.errors import OperatorError, Place

__all__ = ["ConfigErrors", "Settings", "load", "parse"]


def load(path: Path, environment: Mapping[str, str] | None = None, *, look: bool = True) -> Settings:
    """The settings in the file at `path`.

    `environment` fills in `${NAME}` (default: the process's). With `look=False` the files it names need not
    be there, and secrets from files are empty: enough to judge requests, not to serve them.
    """
    return parse(text_of(path), path, environment, look=look)


def text_of(path: Path) -> bytes:
    """What stands in the file at `path`, not yet looked at."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        place = Place(str(path), 0, "")
        raise OperatorError(f"cannot be read: {why}", "`ztproxy init` writes a first one", place) from None


def parse(
    text: bytes, path: Path, environment: Mapping[str, str] | None = None, *, look: bool = True
) -> Settings:
    """The settings in `text`, as if it stood in the file at `path`."""
    source = read(text, str(path), os.environ if environment is None else environment)
    try:
        document = Document.model_validate(source.tree)
    except ValidationError as error:
        raise ConfigErrors(from_validation(error, Document, source)) from None
    return compile_document(document, path.absolute(), source, look=look)
