"""Compiles the hot modules into a wheel where that can be done, and says so where it cannot.

`ZTPROXY_COMPILED=no` makes a pure wheel; `yes` fails rather than make one. Editable installs stay pure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compiled(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("ZTPROXY_COMPILED", "")
        if version == "editable" or wanted == "no":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root / "tools"))
        import compiled

        self._tree = Path(tempfile.mkdtemp(prefix="ztproxy-wheel-"))
        # INVARIANT: nothing compiled before, which could be of another source.
        left = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(root / "ztproxy", self._tree / "ztproxy", ignore=left)
        shutil.copy(root / "pyproject.toml", self._tree)
        try:
            made = compiled.compile_in(self._tree)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(self._tree)
            if wanted == "yes":
                raise RuntimeError(f"the hot modules could not be compiled:\n{error.output}") from error
            self.app.display_warning(
                "a pure wheel: the hot modules could not be compiled; is there a C compiler?"
            )
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {str(one): str(one.relative_to(self._tree)) for one in made}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_tree"):
            shutil.rmtree(self._tree, ignore_errors=True)
