"""What `helmctl why` says of a Python service whose virtual environment does not suit it."""

import pytest

from helmd.model.suite.service import Service
from helmd.model.units.python_failures import environment_cause

SERVICE = Service("shop", "python", path="shop")
IN_CODE = ["Traceback (most recent call last):", '  File "/srv/shop/run.py", line 3, in <module>']
NEWER = [
    *IN_CODE,
    '  File "/srv/shop/cart.py", line 7',
    "    type Cart = list[int]",
    "         ^^^^",
    "SyntaxError: odd",
]
LACKS = [*IN_CODE, "    import tomlkit", "ModuleNotFoundError: No module named 'tomlkit.items'"]


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (LACKS, "lacks tomlkit.items; to install what it requires, run in its directory: pyenv/bin/pip install -r req"),
        (["ImportError: No module named yaml"], "lacks yaml;"),
        (
            NEWER,
            "does not understand /srv/shop/cart.py, which may be written for a newer version; remove pyenv, and",
        ),
        (["up", *NEWER, "", *LACKS], "lacks tomlkit.items"),
    ],
)
def test_an_environment_that_does_not_suit_the_code_is_named(printed: list[str], said: str) -> None:
    assert said in environment_cause(SERVICE, printed)


@pytest.mark.parametrize(
    "printed",
    [
        [],
        ["started"],
        # It went on, and ended by something else.
        [*LACKS, "trying without", *IN_CODE, "ValueError: no colour"],
        ["a customer's template: SyntaxError: odd"],
        [*IN_CODE, "psycopg.OperationalError: connection refused"],
    ],
)
def test_other_failures_are_not_the_environments(printed: list[str]) -> None:
    assert environment_cause(SERVICE, printed) == ""


def test_a_service_without_such_an_environment_gets_no_advice_about_one() -> None:
    assert environment_cause(Service("tool", "command", start_command=("bin/tool",)), LACKS) == ""
    elsewhere = Service("shop", "python", path="shop", python_bin="/opt/env/bin/python3")
    assert "/opt/env/bin/pip install" in environment_cause(elsewhere, LACKS)
