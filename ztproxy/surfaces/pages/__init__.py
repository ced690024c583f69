"""The only HTML of the proxy: templates, and one renderer.

Knows: how a page looks and under which headers it is safe to show. Promises: everything is escaped; the
Content-Security-Policy allows nothing but the page's own style (by its hash) and its forms; no script at
all. Brandable: templates of the same name in the operator's folder come first. Leaves the words
about reasons to `core.reasons`, and the status to the caller.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from ztproxy.core.request import Field
from ztproxy.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Branding:
    """The operator's name on the pages, and a folder of templates that replace ours, or None."""

    name: str = "ztproxy"
    templates: str | None = None


class Page(NamedTuple):
    """A rendered page and the headers it must be served with."""

    body: bytes
    fields: tuple[Field, ...]


class Link(NamedTuple):
    """Where a page leads next; `href` is ours, never the client's."""

    href: str
    text: str


SAFE_FIELDS: tuple[Field, ...] = (
    (b"Cache-Control", b"no-store"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)
"""On every answer of our own, HTML or not."""


class Pages:
    """Renders pages by template name. `devices`: whether there is a page for people's devices to lead to."""

    def __init__(self, branding: Branding, *, devices: bool = False) -> None:
        loaders: list[jinja2.BaseLoader] = [jinja2.FileSystemLoader(Path(__file__).with_name("templates"))]
        if branding.templates is not None:
            if not Path(branding.templates).is_dir():
                raise OperatorError(f"`{branding.templates}` is not a folder", "name a folder of templates")
            loaders.insert(0, jinja2.FileSystemLoader(branding.templates))
        self._templates = jinja2.Environment(
            loader=jinja2.ChoiceLoader(loaders),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # The style is read as it is, not as a template: its hash must be that of the bytes in the page.
        source, _, _ = self._templates.loader.get_source(self._templates, "style.css")  # type: ignore[union-attr]
        if "</" in source:
            raise OperatorError("`style.css` contains `</`", "a style sheet needs no tag")
        self._style = Markup(source)  # noqa: S704 (the operator's own file, and it cannot close the element)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; base-uri 'none'; "
            "frame-ancestors 'none'; form-action 'self'"
        )
        self._brand, self._devices = branding.name, devices

    def render(self, template: str, *, forms_to: str = "", **values: object) -> Page:
        """A page. `forms_to` is a further origin its form may lead to by a redirect (Chromium holds redirects
        of a form's answer to `form-action` too)."""
        values = {"request_id": "", "person": None, **values}
        html = self._templates.get_template(template).render(
            brand=self._brand, style=self._style, devices_page=self._devices, **values
        )
        policy = f"{self._policy} {forms_to}".rstrip()
        fields = (
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Security-Policy", policy.encode()),
            *SAFE_FIELDS,
        )
        return Page(html.encode(), fields)

    def message(
        self,
        title: str,
        what: str,
        *,
        why: tuple[str, ...] = (),
        next: str = "",
        links: tuple[Link, ...] = (),
        person: str | None = None,
        request_id: str = "",
    ) -> Page:
        """What happened, why, what to do next, and the request id."""
        return self.render(
            "message.html",
            title=title,
            what=what,
            why=why,
            next=next,
            links=links,
            person=person,
            request_id=request_id,
        )
