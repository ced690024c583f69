"""The data plane: HTTP/1.1 on asyncio, httptools and uvloop. It moves bytes and knows no identity.

    head        the byte grammar of heads, both ways: the strict guard in front of llhttp
    downstream  the server side of one client connection: limits, timers, pipelining -> Exchange
    exchange    one request and its answer: respond, refuse, forward, tunnel, hand over
    upstream    the client side of one connection to an app
    pool        the connections to an upstream's endpoints: choice, health, retry
    tunnel      after a valid 101: bytes both ways, until cut
    tls         contexts for clients and upstreams, SNI, reload

It is the policy enforcement point of NIST SP 800-207: it does nothing until its `Handler` decides.
"""
