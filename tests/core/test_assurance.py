import pytest

from ztproxy.core.assurance import Levels

KEYCLOAK = Levels(acr={"gold": 3, "silver": 2, "bronze": 1}, amr=())


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
    ("acr", "amr"),
    [
        pytest.param({"mfa": 0}, (), id="rank_zero"),
        pytest.param({"mfa": 4}, (), id="rank_four"),
        pytest.param({}, ((frozenset({"otp"}), 9),), id="amr_rank_nine"),
        pytest.param({}, ((frozenset[str](), 3),), id="empty_set_that_all_would_satisfy"),
    ],
)
def test_levels_that_cannot_be_built(
    acr: dict[str, int], amr: tuple[tuple[frozenset[str], int], ...]
) -> None:
    with pytest.raises(ValueError, match=r"a rank is 1, 2 or 3|not empty"):
        Levels(acr=acr, amr=amr)
