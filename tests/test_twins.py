"""Every module of the core has its own test file, and every such test file a module it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(file.stem for file in (ROOT / "ztproxy/core").glob("*.py") if file.stem != "__init__")
TWINS = sorted(file.stem.removeprefix("test_") for file in (ROOT / "tests/core").glob("test_*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_twin_that_names_it(module: str) -> None:
    twin = ROOT / f"tests/core/test_{module}.py"
    assert twin.exists(), f"{module} has no tests of its own"
    assert f"ztproxy.core.{module} import" in twin.read_text()


def test_no_twin_is_left_alone() -> None:
    assert set(TWINS) <= set(MODULES)
