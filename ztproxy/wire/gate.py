"""Whether octets of people may pass now, asked by the data plane for every piece of them.

Knows: the question and who answers it. Promises nothing itself. Leaves the answer to who holds the gate:
`gateway.watch`, which has it closed while this worker has no live lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ztproxy.wire.exchange import Exchange


class Gate(Protocol):
    """One gate for many exchanges. One that raises is taken to be closed."""

    def open(self) -> bool:
        """Whether anything may pass now. Asked for each piece, so it is to be cheap; it cannot wait."""
        ...

    def shut(self, exchange: Exchange) -> None:
        """`exchange` met the closed gate and is frozen. It is now the holder's to `thaw`, later and not in
        this call, or to `cut`, at any time; called once for each time it freezes this way.
        """
        ...
