"""The text of a configuration file: YAML 1.2 into plain values, each with the line it stands on.

Knows: YAML's syntax by ruamel's event stream, and nothing of its types: the core schema of YAML 1.2.2
(section 10.3.2) is the table below, so `NO` is a word, `010` is ten and `12:30` is not 750. Stricter than
YAML, because a file that decides who gets in must have one reading:

    duplicate keys                 refused; most parsers keep the last without a word
    tags (`!!python/...`, `!x`)    refused; there is nothing to construct
    anchors and aliases            accepted; what they expand to is counted, so a bomb ends early
    merge keys (`<<`)              refused; YAML 1.2 has none
    a key without a value          refused; it is an unfinished thought, never a choice
    several documents, `%YAML 1.1` refused

Promises: `read` answers a `Source` or raises `ConfigErrors`; a value from the environment is a `FromEnv`.
Leaves meaning to the models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ztproxy.config.mistakes import ConfigErrors, FromEnv, Loc, quoted
from ztproxy.errors import OperatorError, Place

Tree = str | int | float | bool | list["Tree"] | dict[str, "Tree"]

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 200_000

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]{1,3})?\Z")
_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\}\Z", re.DOTALL)


_VERSION = ("this is read as YAML 1.2", "remove the `%YAML` line")


@dataclass(frozen=True, slots=True)
class Source:
    """A document: its values, and the line of every key and list entry."""

    file: str
    tree: Tree
    lines: Mapping[Loc, int]

    def place(self, loc: Loc) -> Place:
        """Where `loc` stands, or the nearest thing above it that is written down.

        An only entry may be written without its list: its position 0 is then not a step of the file.
        """
        known: Loc = ()
        for step in loc:
            if (*known, step) in self.lines:
                known = (*known, step)
            elif step != 0:
                break
        return Place(self.file, self.lines.get(known, 0), spelled(known))


def spelled(loc: Loc) -> str:
    """`("routes", 0, "from")` as people read it: `routes[0].from`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read(text: bytes, file: str, environment: Mapping[str, str]) -> Source:
    """Raises `ConfigErrors` with every mistake of form it can find."""

    def refuse(problem: str, mend: str, line: int = 0, key: str = "") -> ConfigErrors:
        return ConfigErrors([OperatorError(problem, mend, Place(file, line, key))])

    if len(text) > MAX_BYTES:
        raise refuse("the file is larger than 4 MiB", "split it up or check that it is the right file")
    try:
        root = _Parser(file, YAML(typ="safe", pure=True).parse(text.decode("utf-8-sig"))).document()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise refuse("the file is not UTF-8", "save it as UTF-8", line) from None
    except AssertionError:  # ruamel's answer to a `%YAML` of another version than it knows
        line = text.count(b"\n", 0, max(0, text.find(b"%YAML"))) + 1
        raise refuse(*_VERSION, line) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise refuse(*_syntax(error.problem or error.context or ""), line) from None
    except (YAMLError, ValueError) as error:
        position = getattr(error, "position", None)
        line = text.decode("utf-8-sig").count("\n", 0, position) + 1 if isinstance(position, int) else 0
        raise refuse("the file holds a character that YAML does not allow", "remove it", line) from None
    reader = _Reader(file, environment)
    tree = reader.value(root, ())
    if reader.errors:
        raise ConfigErrors(reader.errors)
    if not isinstance(tree, dict):
        raise refuse("the file is not a mapping", "write `key: value` lines", root.line)
    return Source(file, tree, reader.lines)


def _syntax(problem: str) -> tuple[str, str]:
    if "'\\t'" in problem:
        return "a tab indents this line", "indent with spaces"
    if "mapping values are not allowed" in problem:
        return "a second `: ` stands on this line", "put the value in quotes or start a new line"
    return f"this is not YAML: {problem}", ""


@dataclass(slots=True)
class _Node:
    """One node of the file as written. Exactly one of the three contents is used."""

    line: int
    scalar: str | None = None
    plain: bool = False
    items: list[_Node] = field(default_factory=list)
    entries: list[tuple[_Node, _Node]] | None = None


class _Parser:
    """Events to nodes, with bounds on depth. Aliases share the node they name."""

    def __init__(self, file: str, events: Iterator[Any]) -> None:
        self._file, self._events = file, events
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        root: _Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise self._refuse(event, "a second document starts here", "write one document a file")
                if event.version not in (None, (1, 2)):
                    raise self._refuse(event, *_VERSION)
            elif isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent | AliasEvent):
                root = self._node(event, 0)
        if root is None:
            place = Place(self._file, 0, "")
            raise ConfigErrors([OperatorError("the file is empty", "see `ztproxy init`", place)])
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        if isinstance(event, AliasEvent):
            # INVARIANT: an anchor is known only once its node is complete, so a node can never hold itself.
            if event.anchor not in self._anchors:
                problem = f"`*{event.anchor}` names nothing written above it"
                raise self._refuse(event, problem, f"write `&{event.anchor}` first")
            return self._anchors[event.anchor]
        if depth > MAX_DEPTH:
            raise self._refuse(event, "this is nested too deeply", f"{MAX_DEPTH} levels are allowed")
        if getattr(event, "ctag", None) is not None:
            raise self._refuse(event, f"the tag {quoted(event.ctag)} is not accepted", "remove it")
        node = _Node(event.start_mark.line + 1)
        if isinstance(event, ScalarEvent):
            node.scalar, node.plain = event.value, event.style is None
        elif isinstance(event, SequenceStartEvent):
            while not isinstance(inner := next(self._events), SequenceEndEvent):
                node.items.append(self._node(inner, depth + 1))
        else:
            node.entries = []
            while not isinstance(inner := next(self._events), MappingEndEvent):
                key = self._node(inner, depth + 1)
                node.entries.append((key, self._node(next(self._events), depth + 1)))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _refuse(self, event: Any, problem: str, mend: str) -> ConfigErrors:
        place = Place(self._file, event.start_mark.line + 1, "")
        return ConfigErrors([OperatorError(problem, mend, place)])


class _Reader:
    """Nodes to values: types by the core schema, variables filled in, every line noted."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        self._file, self._environment = file, environment
        self._left = MAX_VALUES
        self.lines: dict[Loc, int] = {}
        self.errors: list[OperatorError] = []

    def value(self, node: _Node, loc: Loc) -> Tree:
        self._left -= 1
        if self._left < 0:
            place = Place(self._file, node.line, "")
            problem = f"the file expands to more than {MAX_VALUES} values"
            raise ConfigErrors([OperatorError(problem, "use fewer aliases", place)])
        if node.scalar is not None:
            return self._scalar(node, loc)
        if node.entries is None:
            return [self._below(item, item.line, (*loc, index)) for index, item in enumerate(node.items)]
        mapping: dict[str, Tree] = {}
        for key, inner in node.entries:
            name = key.scalar
            if name is None:
                self._wrong(key, loc, "a key is a list or a mapping", "write a word")
            elif name == "<<":
                self._wrong(key, loc, "`<<` merges are not part of YAML 1.2", "repeat the lines")
            elif name in mapping:
                first = self.lines[(*loc, name)]
                problem = f"the key is written twice, first on line {first}"
                self._wrong(key, (*loc, name), problem, "remove one of them")
            else:
                mapping[name] = self._below(inner, key.line, (*loc, name))
        return mapping

    def _below(self, node: _Node, line: int, loc: Loc) -> Tree:
        self.lines[loc] = line
        return self.value(node, loc)

    def _scalar(self, node: _Node, loc: Loc) -> Tree:
        text = node.scalar or ""
        if not node.plain:
            return self._filled(node, text, loc)
        if _NULL.match(text):
            # The place of what is not there is wherever the next thing begins; the key's line is meant.
            key = _Node(self.lines.get(loc, node.line))
            self._wrong(key, loc, "this key has no value", "write one or remove the line")
            return ""
        if _TRUE.match(text):
            return True
        if _FALSE.match(text):
            return False
        if _INT.match(text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
        return self._filled(node, text, loc)

    def _filled(self, node: _Node, text: str, loc: Loc) -> str:
        if "${" not in text:
            return text
        whole = _ENV.match(text)
        if whole is None:
            if "${" in text.replace("$${", ""):
                problem = "`${...}` must be the whole value"
                self._wrong(
                    node, loc, problem, "put all of it into one variable, or write `$${` for the text `${`"
                )
            return text.replace("$${", "${")
        variable, default = whole.groups()
        found: str | None = self._environment.get(variable, default)
        if found is None:
            problem = f"the environment variable `{variable}` is not set"
            self._wrong(node, loc, problem, f"set it or write `${{{variable}:-default}}`")
            return ""
        return FromEnv(found, variable)

    def _wrong(self, node: _Node, loc: Loc, problem: str, mend: str) -> None:
        self.errors.append(OperatorError(problem, mend, Place(self._file, node.line, spelled(loc))))
