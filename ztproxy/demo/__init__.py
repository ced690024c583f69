"""The demo: an OpenID provider, two applications and the people who use them, real and on one machine.

`people` names the visitors; `provider` signs them in; `apps` holds what they visit. `ztproxy demo` starts
these with ztproxy in front, and the tests use the same parts. Nothing here belongs near real users: the
passwords are printed on the sign-in page.
"""
