"""Every peer, in the order of the tables: first those that check nothing, then those that do ztproxy's job.
ztproxy itself is `bench.subject`."""

from __future__ import annotations

from types import ModuleType

from bench.peers import aiohttp_both, apache_oidc, auth_request, envoy, nginx

ALL: tuple[ModuleType, ...] = (nginx, envoy, aiohttp_both, auth_request, apache_oidc)
