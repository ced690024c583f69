"""The journey of a request and of a sign-in: asynchronous, but it knows no technology.

It drives `core` through the `ports`; in the words of NIST SP 800-207 it is the policy administrator.

    judge, judgement        match, gather, decide; and what may be given again
    witness, known          the session behind a request, and what is known of it for a moment
    devices, astray         the device behind a connection; sessions that come from another one
    services                the session behind a token or a SPIFFE certificate
    keeper, lease           the book of locks, and the lease under which it may be relied on
    watch                   exchanges under way: held without a lease, ended by a lock, judged again
    revoker                 puts a lock into the log and says when it holds everywhere
    revoking_devices        with a device, each of its sessions
    follower                the log for those who show it and decide nothing
    sign_in, parallel       signing in; several at a time in one browser
    heard, per_person       what a sign-in asks of the log; how many sessions one person has
    refresh, tickets        having the provider vouch again; from the host of the login to the others
    inventory, enrolment    writing devices down; giving one its certificate
    logout                  sign-outs that begin at the person or at the provider
    provider                an OpenID provider with the rules for its claims
"""
