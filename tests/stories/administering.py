"""The admin API as a story uses it: over its unix socket, with the token that lies beside it.

    admin = Admin(home.directory / "state")
    answer = admin.revoke("user", "bob", home.issuer)       # Answer(200, ...), answer["confirmed"]

Each call is one request on a connection of its own. Nothing is asserted here but that an answer came: also
what is refused is an `Answer`.
"""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.stories.talking import PATIENCE, until

SOCKET, TOKEN = "admin.sock", "admin-token"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered: its fields are had by `answer["field"]`; `promise` is what a revocation is worth
    at the moment, `strict` or `bounded`."""

    status: int
    body: dict[str, Any]
    promise: str

    def __getitem__(self, name: str) -> Any:
        return self.body[name]

    @property
    def problem(self) -> str:
        """The last word of a problem's type; empty where there is none."""
        return str(self.body.get("type", "")).rpartition(":")[2]

    @property
    def confirmed(self) -> bool:
        """Whether what was asked for is known to hold everywhere."""
        return self.status == 200 and self.body.get("confirmed") is True


class _Connection(http.client.HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Admin:
    """The administration of the house whose state directory this is."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir

    def ready(self) -> None:
        """Waits until somebody answers: the process is another one than those that serve people."""
        until(self._answers)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/whoami").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(
        self,
        method: str,
        path: str,
        form: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request below `/api/v1`; `key` is its `Idempotency-Key`, a fresh one if none is given."""
        fields = {"Authorization": f"Bearer {(self._dir / TOKEN).read_text().strip()}"}
        if method != "GET":
            fields["Idempotency-Key"] = key or str(uuid.uuid4())
        if form is not None:
            fields["Content-Type"] = "application/json"
        target = f"/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        connection = _Connection(self._dir / SOCKET)
        try:
            connection.request(method, target, None if form is None else json.dumps(form), fields)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            return Answer(answer.status, body, answer.getheader("Ztproxy-Revocation", ""))
        finally:
            connection.close()

    def revoke(self, kind: str, name: str = "", issuer: str = "", *, key: str = "", **more: Any) -> Answer:
        """Ends every session of a target."""
        return self.ask("POST", "/revocations", {"target": _target(kind, name, issuer), **more}, key=key)

    def lock(
        self, action: str, kind: str, name: str = "", issuer: str = "", *, key: str = "", **more: Any
    ) -> Answer:
        """`more`: `until` or `expires_in`, `message`, `reason`."""
        form = {"target": _target(kind, name, issuer), "action": action, **more}
        return self.ask("POST", "/locks", form, key=key)

    def lift(self, lock: str) -> Answer:
        return self.ask("DELETE", f"/locks/{lock}")

    def locks(self) -> list[dict[str, Any]]:
        """The locks that stand and the revocations that are kept, newest first; none if it cannot be said."""
        answer = self.ask("GET", "/locks")
        return list(answer["locks"]) if answer.status == 200 else []

    def sessions(self, kind: str = "", name: str = "", issuer: str = "") -> list[dict[str, Any]]:
        """A target's sessions, or everybody's, newest first."""
        wanted = {"kind": kind, "name": name, "issuer": issuer}
        answer = self.ask("GET", "/sessions", query={word: text for word, text in wanted.items() if text})
        return list(answer["sessions"]) if answer.status == 200 else []

    def status(self) -> dict[str, Any]:
        """What is promised and why, the log's number, what each worker has applied; empty if it cannot be
        said."""
        answer = self.ask("GET", "/revocation")
        return dict(answer["revocation"]) if answer.status == 200 else {}


def _target(kind: str, name: str, issuer: str) -> dict[str, str]:
    given = {"kind": kind, "name": name, "issuer": issuer}
    return {word: text for word, text in given.items() if text}
