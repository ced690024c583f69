"""The journey of a request and of a sign-in: asynchronous, but it knows no technology.

It drives `core` through the `ports`; in the words of NIST SP 800-207 it is the policy administrator.
"""
