"""Revocation while the network between the nodes of the store comes apart, so that there are two primaries
(FI15 to FI17). `stranded` is a house that sees the first of them alone; `home` is on the others' side."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.stories.house import House
from tests.stories.neighbours import (
    Knocking,
    Visit,
    admin_of,
    let_in,
    locked,
    neighbour,
    refused_politely,
    revoke,
    visit,
)
from tests.stories.talking import until
from tests.stories.wired import BOUNDED, CONTINUE, STRICT, WiredTrio, wired_trio


@contextmanager
def torn(directory: Path, terms: str, **wires: bool) -> Iterator[tuple[WiredTrio, House, House]]:
    """The store, who is stranded when it is cut, and who is not, by other terms."""
    with ExitStack() as stack:
        trio = stack.enter_context(wired_trio(sentinels=True, **wires))
        trio.lone.start()
        (directory / "stranded").mkdir()
        (directory / "home").mkdir()
        stranded = stack.enter_context(
            neighbour(directory / "stranded", trio.lone.url, revocation=STRICT + CONTINUE)
        )
        home = stack.enter_context(
            neighbour(directory / "home", trio.url, stranded, revocation=terms + CONTINUE)
        )
        yield trio, stranded, home


def known(home: House, *visits: Visit) -> None:
    """All of them are let in at a house."""
    until(lambda: all(let_in(home, each.cookie) for each in visits))


def test_fi15_fi17_the_primary_is_cut_off_with_one_node(tmp_path: Path) -> None:
    """Whoever is stranded with it closes the door, and what it acknowledged meanwhile it did not call
    confirmed; what the others confirm holds there too. Together again, nothing that was asked for is lost."""
    with torn(tmp_path, BOUNDED, third=True) as (trio, stranded, home):
        first = trio.nodes[0]
        alice, bob, carol = (visit(stranded, person) for person in ("alice", "bob", "carol"))
        known(stranded, alice, bob, carol)
        known(home, alice, bob, carol)
        before, key = visit(stranded, "mallory"), str(uuid.uuid4())
        with Knocking(stranded, carol.cookie) as hers, Knocking(home, before.cookie) as theirs:
            earlier = revoke(before, at=stranded)
            trio.cut()
            answer = admin_of(stranded).revoke("session", bob.session, key=key)
            assert (answer.status, answer.problem) == (503, "applied_unconfirmed"), answer
            assert stranded.get("/u", bob.cookie).status != 200, "in force where it was heard"

            until(lambda: trio.primary is not first)
            until(lambda: let_in(home, alice.cookie))
            until(lambda: refused_politely(stranded, alice.cookie))
            assert bob.session not in locked(home), "the others have not heard of it: it was not confirmed"
            assert before.session in locked(home), "and this was"
            confirmed = revoke(carol, at=home)
            assert home.get("/u", carol.cookie).status == 401
            assert stranded.get("/u", carol.cookie).status == 503

            trio.heal()
            until(lambda: let_in(stranded, alice.cookie))
            until(lambda: home.get("/u", bob.cookie).status == 401)
            until(lambda: admin_of(stranded).revoke("session", bob.session, key=key).confirmed)
            until(lambda: 401 in hers.begun_after(confirmed)[-1:])
        assert 200 not in hers.begun_after(confirmed)
        assert 200 not in theirs.begun_after(earlier)
        assert hers.cookies == theirs.cookies == []


def test_fi16_the_sentinels_do_not_see_the_primary(tmp_path: Path) -> None:
    """One copy still follows it, so it goes on, and another is made primary beside it: neither can have a
    revocation confirmed, for neither has both others."""
    with torn(tmp_path, STRICT, announced=True) as (trio, stranded, home):
        second = trio.nodes[1]
        alice, bob = (visit(stranded, person) for person in ("alice", "bob"))
        known(stranded, alice, bob)
        known(home, alice, bob)
        assert admin_of(stranded).revoke("user", "nobody", stranded.issuer).confirmed
        key = str(uuid.uuid4())
        trio.cut()
        until(lambda: trio.primary is second)
        until(lambda: refused_politely(home, alice.cookie))
        assert let_in(stranded, alice.cookie), "its primary has a copy, and takes writes"
        answer = admin_of(stranded).revoke("session", bob.session, key=key)
        assert (answer.status, answer.problem) == (503, "applied_unconfirmed"), answer
        assert stranded.get("/u", bob.cookie).status == 401
        answer = admin_of(home).revoke("session", bob.session)
        assert answer.status == 503, answer

        trio.heal()
        until(lambda: let_in(home, alice.cookie) and let_in(stranded, alice.cookie))
        until(lambda: home.get("/u", bob.cookie).status == 401)
        until(lambda: admin_of(stranded).revoke("session", bob.session, key=key).confirmed)
        assert stranded.get("/u", bob.cookie).status == 401
