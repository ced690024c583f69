"""The data plane: HTTP/1.1 on asyncio, httptools and uvloop. It moves bytes and knows no identity.

    listener, proxy_protocol, tls   where connections come from, and over what
    head        the byte grammar of heads, both ways: the strict guard
    agreement   llhttp's second opinion of each request head
    bodies      where a body ends: counted, chunked
    downstream  the server side of one client connection: limits, timers, pipelining -> Exchange
    connections all client connections of a worker: caps, timers, drain
    exchange    one request and its answer: respond, refuse, forward, tunnel, hand over
    answer      what an app's response head means
    upstream    the client side of one connection to an app
    pool        the connections to an upstream's endpoints: choice, ejection, retry
    health      asking endpoints whether they are well
    tunnel      after a valid 101: bytes both ways, until cut
    frames      where the frames of a WebSocket end, and close frames of our own
    gate        whether bytes of people may pass now; asked for each piece, answered elsewhere
    hand_over   one request given to another protocol (our own pages)
    limits      how much and how long

It is the policy enforcement point of NIST SP 800-207: it does nothing until its `Handler` decides.
"""
