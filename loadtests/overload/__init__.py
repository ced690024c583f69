"""Overload: what ztproxy promises while it is attacked, starved or lied to, looked at beside honest traffic.

`python -m loadtests.overload` runs every scenario, each against a ztproxy of its own: see `run`.
"""
