"""How fast, and at what cost in memory: `make bench`, or `python -m bench` (`--quick` for a short look).

What is measured is the product, started as `ztproxy run` starts it, with somebody signed in: one worker on
one core, a policy with groups, the signed assertion, both logs and the metrics. Beside it, on the same core
and in front of the same upstream, nginx (the practical limit) and an aiohttp server with an aiohttp client
(what one would write first). The upstream and the load share the other core, so absolute figures mean little;
the ratios hold. Nothing here is a test: a slow machine fails nothing.
"""
