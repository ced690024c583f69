"""How ztproxy's speed goes as what it holds grows: routes, rules, sessions, groups, connections, workers.

`python -m bench.growth` takes some twelve minutes on two cores and writes `build/bench-growth.json`;
`--quick` looks for a minute and a half, with small sizes.

    house     one configuration for every size, and ztproxy running with it
    filling   sessions by the million, made by the store's own code
    holding   connections and WebSockets that are open and idle, held by processes of their own
    load      wrk: as much as goes, and at a given rate; what it saw is checked
    curves    what grows, which sizes, and what explains a slope
    measuring rounds over all sizes of a curve, in turn
"""

HOST = "app.test"
"""The one that is asked, in every size."""

COOKIE = "__Host-ztproxy"
