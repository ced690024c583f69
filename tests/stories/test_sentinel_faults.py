"""Revocation over a store of three nodes whose primary is killed, is replaced by one that knows less, or is
one of a cluster (FI14, FI18, FI19). For networks that come apart see `test_split_brain`."""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.stories.neighbours import (
    SUBJECTS,
    Knocking,
    admin_of,
    let_in,
    locked,
    neighbour,
    refused_politely,
    revoke,
    visit,
)
from tests.stories.talking import until
from tests.stories.wired import BOUNDED, STRICT, wired_trio
from tests.worlds.servers import HOST, Cluster, Server, cluster, sentinel_trio


def test_fi14_a_primary_that_is_killed(tmp_path: Path) -> None:
    """What was confirmed stands, who was let in is so again without signing in, and nothing is called
    confirmed that not every copy has."""
    with sentinel_trio() as trio, neighbour(tmp_path, trio.url, revocation=STRICT) as home:
        assert admin_of(home).status()["promise"] == "strict"
        alice, bob = home.sign_in("alice"), visit(home, "bob")
        assert let_in(home, bob.cookie)
        former, key = trio.primary, str(uuid.uuid4())
        with Knocking(home, bob.cookie) as his, Knocking(home, alice) as hers:
            confirmed = revoke(bob, at=home)
            former.kill()
            until(lambda: refused_politely(home, alice))
            trio.moved(former)
            until(lambda: let_in(home, alice))
            # A new primary may not take writes yet: then nothing was done, and the answer says so.
            answers = [admin_of(home).revoke("user", SUBJECTS["carol"], home.issuer, key=key)]
            while answers[-1].problem == "not_applied" and len(answers) < 20:
                assert SUBJECTS["carol"] not in locked(home)
                answers.append(admin_of(home).revoke("user", SUBJECTS["carol"], home.issuer, key=key))
            assert (answers[-1].status, answers[-1].problem) == (503, "applied_unconfirmed"), (
                "a copy is missing"
            )
            assert SUBJECTS["carol"] in locked(home), "it is in force where it is heard"
            former.start()
            until(lambda: admin_of(home).revoke("user", SUBJECTS["carol"], home.issuer, key=key).confirmed)
        assert 200 not in his.begun_after(confirmed)
        assert {knock.status for knock in hers.knocks} <= {200, 503}
        assert hers.cookies == []
        assert bob.session in locked(home)


def test_fi18_the_only_node_left_had_not_heard_everything(tmp_path: Path) -> None:
    """What the workers know is put back into the store before anybody is let in; and because nobody can say
    what else is missing, everybody signs in again."""
    with wired_trio() as trio, neighbour(tmp_path, trio.url, revocation=BOUNDED) as home:
        first, late, other = trio.nodes
        alice, bob = home.sign_in("alice"), visit(home, "bob")
        assert let_in(home, bob.cookie)
        trio.copied(2)
        with Knocking(home, bob.cookie) as knocking:
            trio.door.partition()
            confirmed = revoke(bob, at=home)
            first.kill()
            other.kill()
            until(lambda: trio.primary is late)
            until(lambda: "role:master" in late.ask("INFO", "replication"))
            assert late.ask("GET", "{ztp}:seq") in ("", "0"), "it had not heard of it"
            other.options["replicaof"] = f"{HOST} {late.port}"
            other.start()
            until(lambda: bob.session in locked(home))
            until(lambda: 401 in knocking.begun_after(confirmed)[-1:])
        assert 200 not in knocking.begun_after(confirmed)
        until(lambda: home.get("/u", alice).status == 401)
        assert "which are in it again" in home.log("proxy")


def test_fi19_a_cluster(tmp_path: Path) -> None:
    """All that is ours lies on one node of it, which may fail, make the others fail, or hand it on."""
    with cluster() as store, neighbour(tmp_path, store.url) as home:
        assert admin_of(home).status()["promise"] == "bounded"
        alice, bob = home.sign_in("alice"), visit(home, "bob")
        ours = store.holder("{ztp}:rev")
        other, *_ = (node for node in store.nodes if node is not ours)
        with Knocking(home, bob.cookie) as knocking, Knocking(home, alice) as hers:
            confirmed = revoke(bob, at=home)
            ours.kill()
            until(lambda: refused_politely(home, alice))
            ours.start()
            until(lambda: let_in(home, alice))
            other.kill()
            until(lambda: refused_politely(home, alice))
            assert "state: cluster" in home.log("proxy"), "CLUSTERDOWN: not all slots are served"
            other.start()
            until(lambda: let_in(home, alice))
            hand_on(store, ours, other)
            until(lambda: let_in(home, alice))
            until(lambda: 401 in knocking.begun_after(confirmed)[-1:])
            carol = visit(home, "carol")
            revoke(carol, at=home)
            assert home.get("/u", carol.cookie).status == 401
        assert 200 not in knocking.begun_after(confirmed)
        assert {knock.status for knock in hers.knocks} <= {200, 503}
        assert hers.cookies == []


def hand_on(store: Cluster, giver: Server, taker: Server) -> None:
    """Moves all that is ours to another node, one half after the other."""
    until(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in store.nodes))
    slot = giver.ask("CLUSTER", "KEYSLOT", "{ztp}:rev")
    names = {node.port: node.ask("CLUSTER", "MYID") for node in store.nodes}
    taker.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[giver.port])
    giver.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[taker.port])
    keys = giver.ask("CLUSTER", "GETKEYSINSLOT", slot, "1000").split("\n")
    for half in (keys[::2], keys[1::2]):
        assert giver.ask("MIGRATE", HOST, str(taker.port), "", "0", "5000", "KEYS", *half) == "OK"
    until(lambda: giver.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == "0")
    for node in (taker, giver, *store.nodes):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[taker.port])
    until(lambda: "MOVED" in giver.ask("GET", "{ztp}:seq"))
