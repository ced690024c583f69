"""A visitor without a browser: walks the provider's sign-in page over plain HTTP, as its form says.

For tests and `ztproxy demo --check`. It knows the names of the forms' fields and nothing else of the
provider; what a security key is asked there, one without the hardware answers (`security_key`).
"""

import json
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from ztproxy.demo.forms import Form
from ztproxy.demo.people import ONE_TIME_CODE
from ztproxy.demo.security_key import OURS, SecurityKey

_PAGES = 3
"""The sign-in page, and a security key that is registered and then used."""


class SignInFailed(Exception):
    """The provider did not send the visitor back to the application."""


async def sign_in_as(
    session: aiohttp.ClientSession,
    authorize_url: str,
    person: str,
    method: str,
    key: SecurityKey = OURS,
) -> str:
    """The callback URL to which the provider sends the visitor, with its `code` or its `error`.

    `person` is a user name, `method` one of `pwd`, `mfa` and `phr`, `key` what is used for the last. Where
    the provider's own session is enough, nothing is asked and nobody signs in. `session` keeps the cookies;
    for a provider at an IP address it needs `aiohttp.CookieJar(unsafe=True)`. Raises `SignInFailed`.
    """
    async with session.get(URL(authorize_url, encoded=True), allow_redirects=False) as response:
        text = await response.text()
        location = response.headers.get("Location")
        if location is not None:
            return location
        if response.status != 200:
            raise SignInFailed(f"the authorization endpoint answers {response.status}")
    form = Form(text)
    if form.action is None:
        raise SignInFailed("the authorization endpoint shows no form")
    fields = {
        **form.hidden,
        "person": person,
        "method": method,
        "password": person,
        "one_time_code": ONE_TIME_CODE,
    }
    for _ in range(_PAGES):
        target = urljoin(authorize_url, form.action)
        async with session.post(target, data=fields, allow_redirects=False) as response:
            location = response.headers.get("Location")
            if location is not None:
                return location
            form = Form(await response.text())
        if response.status != 200 or form.action is None or "options" not in form.hidden:
            break
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(authorize_url))
        try:
            answer = key.answer(origin, json.loads(form.hidden["options"]))
        except LookupError as error:
            raise SignInFailed(f"the security key of `{person}` does not answer: {error}") from None
        fields = {**form.hidden, "answer": answer}
    raise SignInFailed(f"the sign-in of `{person}` by `{method}` is answered with {response.status}")
