"""How much each service may post."""

from helmd.model.ingest import token_bucket as rate
from helmd.model.ingest.token_bucket import Rates


def test_a_burst_is_let_in_at_once_and_then_the_rate() -> None:
    rates = Rates(10, 100)
    assert rates.pause("core", 0) == 0
    rates.take("core", 99, 0)
    assert rates.pause("core", 0) == 0
    rates.take("core", 1, 0)
    assert rates.pause("core", 0) == 0.1
    assert rates.pause("core", 0.2) == 0
    assert rates.pause("codex", 0) == 0


def test_what_was_let_in_is_owed_but_no_more_than_a_burst() -> None:
    rates = Rates(10, 100)
    rates.take("core", 130, 0)
    assert rates.pause("core", 0) == 3
    assert rates.pause("core", 2) == 1
    rates.take("core", 10_000, 2)
    assert rates.pause("core", 2) == 10
    assert rates.pause("core", 13) == 0


def test_rest_gives_no_more_than_a_burst() -> None:
    rates = Rates(10, 100)
    rates.take("core", 50, 0)
    rates.take("core", 100, 1000)
    assert rates.pause("core", 1000) > 0


def test_other_rates_hold_at_once() -> None:
    rates = Rates(10, 100)
    rates.take("core", 200, 0)
    rates.adopt(1000, 100)
    assert rates.pause("core", 0) == 0.1


def test_only_so_many_names_are_kept() -> None:
    rates = Rates(1, 5)
    for number in range(rate.MOST_NAMES + 1):
        rates.take(f"n{number}", 10, 0)
    assert rates.pause("n0", 0) == 0, "the oldest is forgotten"
    assert rates.pause("n1", 0) == 5
