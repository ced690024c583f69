"""The demo's HTML: one renderer and its response headers, for the provider and for the applications.

Every value is escaped by the template engine; a template that names a value it was not given fails.
"""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import jinja2
from aiohttp import web

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, *, status: int = 200, **values: object) -> web.Response:
    """The page made from `templates/<template>.html`.

    The policy has no `form-action`: Chromium applies it to the redirects after a form as well, and the way
    from a sign-in page leads to origins that only the client and the proxy behind it know.
    """
    nonce = secrets.token_urlsafe(16)
    text = _templates.get_template(f"{template}.html").render(nonce=nonce, **values)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; frame-ancestors 'none'"
    )
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


def script(name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that gives out one of the scripts beside this file."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type="text/javascript", headers={"Cache-Control": "no-store"})

    return handler
