"""The admin console: the same sessions and locks as the admin API, for people, on the same listener.

    app        one request from its first check to its page; the only module that knows aiohttp's application
    entrance   who may come in: a person whom ztproxy vouches for, or whoever has a link used once
    forms      bodies and queries as fields
    asked      what a page is given, and what it answers
    acting     doing things, by the very functions the API uses
    results    what came of it, said honestly
    assets     the style sheet and htmx, under names that change with them
    views      values made fit to be looked at

and one module for each part (`sessions`, `revoking`, `devices`, `locks`, `watching`). Everything works
without JavaScript; htmx asks for parts of the same pages.
"""
