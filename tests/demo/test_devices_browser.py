"""A person at a laptop, in a real Chromium: a security key (a virtual one), the tool that enrols the laptop,
and the app that wants both.

Promises: Chromium makes and uses the key, TLS shows the certificate; the test makes up nothing of either.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("playwright.async_api", reason="playwright is not installed")

from playwright.async_api import expect

from tests.demo.at_a_laptop import NODE_OPTIONS, PATIENCE, enrol, laptop
from tests.stories.browsing import CHROMIUM, browser, complaints, sign_in
from ztproxy.demo.running import running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on the PATH"),
]


async def test_a_key_and_a_laptop_open_admin_and_neither_does_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_OPTIONS", NODE_OPTIONS)
    expect.set_options(timeout=PATIENCE)
    device = tmp_path / "device"
    async with running(None, workers=1) as demo, browser() as chromium:
        admin = demo.site.origin("admin") + "/"
        async with laptop(chromium, demo) as page:
            answer = await page.goto(admin)
            assert answer is not None and answer.status == 403
            await expect(page.get_by_role("heading", level=1)).to_have_text("This needs a known device")
            assert await complaints(page) == []

            async def look() -> None:
                assert await complaints(page) == []

            said = await enrol(demo, page, device, look)
            assert "enrolled as d-" in said
            await page.goto(demo.site.origin("login") + "/.ztproxy/devices")
            await expect(page.get_by_role("heading", name="carol's laptop")).to_be_visible()
            await expect(page.get_by_text("approved", exact=True)).to_be_visible()
        async with laptop(chromium, demo, device) as page:
            # A password first: the laptop alone opens nothing, and the key is asked for.
            await page.goto(demo.site.origin("home") + "/")
            await sign_in(page, "carol")
            await page.wait_for_url(demo.site.origin("home") + "/")
            await page.goto(admin)
            await expect(page.get_by_text("asks for: Security key")).to_be_visible()
            await expect(page.get_by_label("Security key", exact=True)).to_be_checked()
            await sign_in(page, "carol", "phr")
            await page.wait_for_url(admin)
            await expect(page.get_by_text("You are Carol Clark.")).to_be_visible()
            await expect(page.get_by_role("row", name="acr urn:ztproxy:demo:phr")).to_be_visible()
