"""ztproxy: an identity-aware reverse proxy. It knows, decides, does, and records why.

This package imports nothing on its own, so that `ztproxy.verify` stays light for the apps that use it.
Start reading at `ztproxy.core`.
"""

__version__ = "0.1.0"
