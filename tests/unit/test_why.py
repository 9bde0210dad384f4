"""Wording of durations and numbers in ``helmctl why`` and other messages."""

import pytest

from helmd.model.counted import counted
from helmd.model.errors import ConfigurationError, Fault
from helmd.operations.diagnostics.why import since


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "just now"),
        (0.4, "just now"),
        (1, "for 1 second"),
        (59.9, "for 59 seconds"),
        (60, "for 1 minute"),
        (7200, "for 2 hours"),
        (86400, "for 1 day"),
        (1001 * 86400, "for 1,001 days"),
    ],
)
def test_since(seconds: float, words: str) -> None:
    assert since(1_000_000_000 - seconds, 1_000_000_000) == words


def test_counted() -> None:
    assert [counted(count, "unit") for count in (0, 1, 2, 1000)] == ["0 units", "1 unit", "2 units", "1,000 units"]


def test_the_number_of_faults() -> None:
    fault = Fault("helm.toml", 1, "", "is not valid TOML")
    assert str(ConfigurationError([fault])).startswith("1 fault in the configuration")
    assert str(ConfigurationError([fault, fault])).startswith("2 faults in the configuration")
