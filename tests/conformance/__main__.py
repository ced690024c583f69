"""`python -m tests.conformance` writes `docs/conformance.md`."""

from tests.conformance.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
