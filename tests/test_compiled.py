"""What makes the compiled build: a small package compiled for real, and the list of what is compiled."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent

LISTED: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ztproxy"]["compiled"]
TREES = [(name, ast.parse((ROOT / name).read_text())) for name in LISTED]

needs_a_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc")


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compiled", ROOT / "tools" / "compiled.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(at: Path, source: str) -> Path:
    (at / "ztproxy").mkdir()
    (at / "ztproxy" / "__init__.py").write_text("")
    (at / "ztproxy" / "small.py").write_text(source)
    (at / "pyproject.toml").write_text('[tool.ztproxy]\ncompiled = ["ztproxy/small.py"]\n')
    return at


def test_what_is_listed_is_there(compiled: ModuleType) -> None:
    assert compiled.modules(ROOT) == LISTED == sorted(set(LISTED))
    assert "ztproxy/wire/exchange.py" in LISTED


@needs_a_compiler
def test_a_compiled_module_says_the_same(compiled: ModuleType, tmp_path: Path) -> None:
    at = tree(tmp_path, "def double(number: int) -> int:\n    return 2 * number\n")
    made = compiled.compile_in(at)
    assert {one.parent for one in made} == {at, at / "ztproxy"}
    said = subprocess.run(
        [sys.executable, "-c", "from ztproxy import small; print(small.double(21), small.__file__)"],
        cwd=at,
        capture_output=True,
        text=True,
        check=True,
    )
    answer, _, where = said.stdout.strip().partition(" ")
    assert answer == "42" and where.endswith(".so")
    assert sorted(one.name for one in at.iterdir() if one.suffix != ".so") == ["pyproject.toml", "ztproxy"]


def test_what_cannot_be_compiled_says_why(compiled: ModuleType, tmp_path: Path) -> None:
    at = tree(tmp_path, "class Many(list):\n    pass\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        compiled.compile_in(at)
    assert "small.py:1" in failed.value.output
    assert not list(at.rglob("*.so"))


def test_any_change_asks_for_it_anew(compiled: ModuleType, tmp_path: Path) -> None:
    at = tree(tmp_path, "ONE = 1\n")
    before = compiled.digest(at)
    (at / "ztproxy" / "other.py").write_text("")
    (at / "ztproxy" / "other.py").write_text("TWO = 2\n")
    assert compiled.digest(at) != before


@pytest.mark.parametrize("listed", TREES, ids=lambda one: one[0])
def test_nothing_in_them_that_mypyc_compiles_to_something_else(listed: tuple[str, ast.Module]) -> None:
    """It evaluates a call within a slice twice where what is sliced is no bytes, text, list or tuple, and
    drops what a class statement says beside its bases."""
    name, tree = listed
    slices = [node for node in ast.walk(tree) if isinstance(node, ast.Slice)]
    calls = [node for one in slices for node in ast.walk(one) if isinstance(node, ast.Call)]
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.keywords]
    assert {ast.unparse(call.func) for call in calls} <= {"len"}, name
    assert not classes, name
