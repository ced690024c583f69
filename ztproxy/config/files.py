"""The files a configuration names: found beside it, there, readable, and secret where they must be.

Promises: a relative path is relative to the configuration file's folder, wherever the process was started; a
private file that everyone on the machine may read is a mistake (T43). Leaves reading certificates to `wire`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ztproxy.config.mistakes import Findings, Loc, quoted

_MAX_SECRET = 64 * 1024


class Files:
    """`paths` collects every file named, for `watch`. With `look=False` nothing on disk is touched."""

    def __init__(self, folder: Path, findings: Findings, look: bool = True) -> None:
        self.folder, self.findings, self.look = folder, findings, look
        self.paths: list[Path] = []

    def path(self, text: str) -> Path:
        return self.folder / text

    def named(self, text: str, loc: Loc, *, secret: bool = False, own: bool = False) -> Path:
        """The absolute path of a file that must be there. A `secret` one is closed to the world, an `own` one
        to everybody else (a group may share a TLS key with its renewer; nobody shares ztproxy's own keys)."""
        path = self.path(text)
        self.paths.append(path)
        if self.look:
            self._check(path, loc, secret, own)
        return path

    def folder_named(self, text: str, loc: Loc) -> Path:
        path = self.path(text)
        if self.look and not path.is_dir():
            self.findings.wrong(loc, f"there is no folder {quoted(path)}", "create it or correct the path")
        return path

    def appended(self, path: Path, loc: Loc) -> None:
        """A file that ztproxy adds to and reads again; it need not be there yet."""
        if self.look:
            try:
                found = path.stat()
            except OSError:
                return
            if not stat.S_ISREG(found.st_mode):
                self.findings.wrong(
                    loc, f"{quoted(path)} is no file that keeps anything", "write another one"
                )

    def secret(self, text: str, loc: Loc) -> str:
        """The content of a secret's file, without the line end an editor leaves; empty when not looking."""
        before = len(self.findings.errors)
        path = self.named(text, loc, secret=True)
        if not self.look or len(self.findings.errors) > before:
            return ""
        try:
            value = path.read_bytes()[: _MAX_SECRET + 1].decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            self.findings.wrong(loc, f"the file {quoted(path)} is not text", "write the secret as UTF-8")
            return ""
        if not value or len(value) > _MAX_SECRET:
            self.findings.wrong(
                loc, f"the file {quoted(path)} holds no secret", "write it there, on one line"
            )
        return value

    def _check(self, path: Path, loc: Loc, secret: bool, own: bool) -> None:
        try:
            found = path.stat()
        except OSError:
            self.findings.wrong(loc, f"there is no file {quoted(path)}", "create it or correct the path")
            return
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
            problem = f"{quoted(path)} is not a file that can be read here"
            self.findings.wrong(loc, problem, "correct the path, or who may read it")
            return
        mode = stat.S_IMODE(found.st_mode)
        if (secret and mode & 0o006) or (own and mode & 0o077):
            who = "everyone on this machine has" if mode & 0o006 else "its group has"
            problem = f"{who} rights on {quoted(path)} (mode {mode:04o})"
            self.findings.wrong(loc, problem, f"run `chmod 600 {path}`")
        elif secret and mode & 0o020:
            self.findings.warn(loc, f"its group may change {quoted(path)}: run `chmod g-w {path}`")
