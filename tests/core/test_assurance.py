from typing import Any

import pytest

from ztproxy.core.assurance import Levels
from ztproxy.core.identity import Step

KEYCLOAK = Levels(acr={"gold": 3, "silver": 2, "bronze": 1}, amr=())
FIVE = Levels(acr={"urn:bank:5": 5}, amr=(), names=("guest", "password", "code", "key", "key_in_office"))


@pytest.mark.parametrize(
    ("acr", "amr", "rank"),
    [
        pytest.param(None, (), 1, id="nothing_said"),
        pytest.param("urn:made:up", (), 1, id="unknown_acr"),
        pytest.param("", (), 1, id="empty_acr"),
        pytest.param("mfa", (), 2, id="acr_mfa"),
        pytest.param("phr", (), 3, id="acr_phishing_resistant"),
        pytest.param("phrh", (), 3, id="acr_phishing_resistant_hardware"),
        pytest.param("PHR", (), 1, id="another_spelling_is_another_acr"),
        pytest.param("phr ", (), 1, id="a_space_is_another_acr"),
        pytest.param("mfa phr", (), 1, id="two_acrs_in_one_are_none"),
        pytest.param(None, ("pwd",), 1, id="amr_password"),
        pytest.param(None, ("pwd", "otp"), 2, id="amr_one_time_code"),
        pytest.param(None, ("pwd", "mfa"), 2, id="amr_mfa"),
        pytest.param(None, ("hwk",), 3, id="amr_hardware_key"),
        pytest.param(None, ("otp", "fido"), 3, id="amr_the_strongest_counts"),
        pytest.param("1", ("pwd", "mfa"), 2, id="unknown_acr_leaves_it_to_amr"),
        pytest.param("mfa", ("hwk",), 2, id="known_acr_is_not_raised_by_amr"),
    ],
)
def test_rank(acr: str | None, amr: tuple[str, ...], rank: int) -> None:
    assert Levels().rank(acr, amr) == rank


@pytest.mark.parametrize(
    ("used", "rank"),
    [
        pytest.param(("pwd", "sms"), 2, id="both"),
        pytest.param(("pwd", "sms", "geo"), 2, id="and_more"),
        pytest.param(("pwd",), 1, id="one_of_two"),
        pytest.param((), 1, id="none"),
    ],
)
def test_a_set_of_methods_counts_when_all_were_used(used: tuple[str, ...], rank: int) -> None:
    assert Levels(acr={}, amr=((frozenset({"pwd", "sms"}), 2),)).rank(None, used) == rank


@pytest.mark.parametrize(
    ("levels", "rank", "asked"),
    [
        pytest.param(Levels(), 0, (), id="nothing_in_particular"),
        pytest.param(Levels(), 1, (), id="any_sign_in"),
        pytest.param(Levels(), 2, ("mfa", "phr", "phrh"), id="second_factor"),
        pytest.param(Levels(), 3, ("phr", "phrh"), id="phishing_resistant"),
        pytest.param(KEYCLOAK, 2, ("silver", "gold"), id="weakest_that_will_do_first"),
        pytest.param(Levels(acr={}), 3, (), id="none_configured"),
    ],
)
def test_acr_values_for(levels: Levels, rank: int, asked: tuple[str, ...]) -> None:
    assert levels.acr_values_for(rank) == asked


@pytest.mark.parametrize(
    ("levels", "rank", "max_age", "asked"),
    [
        pytest.param(Levels(), 1, None, "", id="nothing"),
        pytest.param(Levels(acr={}), 3, None, "", id="nothing_it_could_name"),
        pytest.param(
            Levels(),
            3,
            None,
            '{"id_token":{"acr":{"essential":true,"values":["phr","phrh"]}}}',
            id="a_rank",
        ),
        pytest.param(Levels(), 0, 0, '{"id_token":{"auth_time":{"essential":true}}}', id="an_age"),
        pytest.param(
            KEYCLOAK,
            2,
            60,
            '{"id_token":{"acr":{"essential":true,"values":["silver","gold"]},"auth_time":{"essential":true}}}',
            id="both",
        ),
        pytest.param(
            Levels(acr={'"},"x":"': 2}),
            2,
            None,
            r"""{"id_token":{"acr":{"essential":true,"values":["\"},\"x\":\""]}}}""",
            id="a_name_stays_a_name",
        ),
    ],
)
def test_claims_parameter(levels: Levels, rank: int, max_age: float | None, asked: str) -> None:
    assert levels.claims_parameter(rank, max_age) == asked


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        pytest.param(Levels(), ["password", "multi_factor", "phishing_resistant"], id="built_in"),
        pytest.param(FIVE, ["guest", "password", "code", "key", "key_in_office"], id="five"),
    ],
)
def test_the_place_of_a_name_is_its_rank(levels: Levels, names: list[str]) -> None:
    for rank, name in enumerate(names, 1):
        assert (levels.rank_of(name), levels.name_of(rank)) == (rank, name)
    assert levels.name_of(0) == names[0]
    assert levels.name_of(99) == names[-1]
    assert levels.rank_of("Password") is None


def test_ranks_go_as_far_as_there_are_names() -> None:
    assert FIVE.rank("urn:bank:5", ()) == 5
    assert FIVE.acr_values_for(4) == ("urn:bank:5",)


@pytest.mark.parametrize(
    ("remember", "rank", "steps"),
    [
        pytest.param({}, 1, (Step(1, 900),), id="as_long_as_the_session"),
        pytest.param({3: 60}, 3, (Step(1, 900), Step(2, 900), Step(3, 160)), id="the_strongest_for_a_while"),
        pytest.param({2: 60}, 3, (Step(1, 900), Step(2, 160), Step(3, 900)), id="each_for_its_own_time"),
        pytest.param({3: 60}, 2, (Step(1, 900), Step(2, 900)), id="another_rank_is_remembered_so"),
    ],
)
def test_what_a_sign_in_is_remembered_for(
    remember: dict[int, float], rank: int, steps: tuple[Step, ...]
) -> None:
    assert Levels(remember=remember).steps(rank, proved_at=100, until=900) == steps


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"acr": {"mfa": 0}}, id="rank_zero"),
        pytest.param({"acr": {"mfa": 4}}, id="rank_four_of_three"),
        pytest.param({"amr": ((frozenset({"otp"}), 9),)}, id="amr_rank_nine"),
        pytest.param({"amr": ((frozenset[str](), 3),)}, id="empty_set_that_all_would_satisfy"),
        pytest.param({"remember": {4: 60.0}}, id="remembers_a_rank_without_a_name"),
        pytest.param({"remember": {3: 0.0}}, id="remembers_for_no_time"),
        pytest.param({"names": ()}, id="no_names"),
        pytest.param({"names": ("a", "b", "a")}, id="one_name_twice"),
        pytest.param({"names": ("a", "", "b")}, id="a_name_of_nothing"),
        pytest.param({"names": tuple("abcdefghij")}, id="ten_names"),
    ],
)
def test_levels_that_cannot_be_built(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a rank is|not empty|one to 9 names"):
        Levels(**changes)
