"""Readers of single values: what they take, what they refuse, and that nothing else ever comes out of them."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.config import validators as values
from helmd.model.config.schema import HELM_SETTINGS
from helmd.model.config.service_schema import SERVICE_SETTINGS
from helmd.model.config.setting import Setting

SCALARS = st.one_of(
    st.text(max_size=30),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.times(),
    st.datetimes(),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(value=ANYTHING)
def test_a_reader_reads_or_says_in_a_sentence_why_not(value: object) -> None:
    """Every reader: making a value takes longer than reading it sixty times."""
    for setting in (*SERVICE_SETTINGS, *HELM_SETTINGS):
        try:
            setting.read(value)
        except ValueError as problem:
            message = str(problem)
            assert message.isprintable() and message.isascii() and 5 < len(message) < 300


@pytest.mark.parametrize("setting", [*SERVICE_SETTINGS, *HELM_SETTINGS], ids=lambda setting: setting.key)
def test_a_number_that_python_would_not_print_is_refused_in_a_sentence(setting: Setting) -> None:
    for value in (16**9000, -(16**9000), [16**9000], {"A": 16**9000}):
        with pytest.raises(ValueError, match=r"must be|must name|too many digits") as caught:
            setting.read(value)
        assert "sys.set_int_max_str_digits" not in str(caught.value)


@given(st.text(max_size=40))
def test_text_that_is_read_is_one_printable_line(value: str) -> None:
    try:
        read = values.text(value)
    except ValueError:
        assert not value.isprintable()
    else:
        assert read == value and read.isprintable()


@pytest.mark.parametrize(
    "bad", ["a\nb", "a\rb", "a\0b", "\x1b[0m", "\u202eb", "\u2028", "\x85", "\x9b", "\ue000", "\ufeff"]
)
def test_text_refuses_what_a_terminal_or_a_unit_would_obey(bad: str) -> None:
    with pytest.raises(ValueError, match="one line of printable characters"):
        values.text(bad)
    with pytest.raises(ValueError, match="one line of printable characters"):
        values.environment({"A": bad})


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2),
        ("5min", 300),
        ("5m", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("1.5s", 1.5),
        (3, 3),
        (0.25, 0.25),
    ],
)
def test_durations(given_: object, seconds: float) -> None:
    assert values.duration(given_) == seconds


@pytest.mark.parametrize("bad", ["", "s", "-1s", "1 parsec", "1e3s", "0", "9ms", "367d", True, [1], 1e300, -5, "٣s"])
def test_durations_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        values.duration(bad)


@pytest.mark.parametrize(
    ("given_", "count"),
    [("512M", 512 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), ("1T", 1 << 40), (1 << 21, 1 << 21), ("2048K", 2 << 20)],
)
def test_sizes(given_: object, count: int) -> None:
    assert values.size(given_) == count


@pytest.mark.parametrize("bad", ["", "M", "-1G", "1.5G", "1P", "100", 0, True, "infinity", "50%", 1.0])
def test_sizes_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        values.size(bad)


def test_percent() -> None:
    assert values.percent(50) == 50 and values.percent("150%") == 150
    for bad in ("50", "50 %", "%", 0, 1.5, "1000000%"):
        with pytest.raises(ValueError, match="must be"):
            values.percent(bad)


def test_words_are_split_as_a_shell_would_and_never_run_by_one() -> None:
    assert values.words("bin/run --name 'two words' \"$HOME\" ; rm *") == (
        "bin/run", "--name", "two words", "$HOME", ";", "rm", "*"
    )  # fmt: skip
    assert values.words(["bin/run", "", "-x"]) == ("bin/run", "", "-x")


@pytest.mark.parametrize(
    "bad",
    ["", "'", [], [""], ["../x"], ["a/../b"], ["-x"], ["@x"], ["+x"], ["!x"], [":x"], ["a b%c"], ["a\tb"], ["x"] * 257],
)
def test_words_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        values.words(bad)


def test_paths() -> None:
    for good in ("~/suite/core", "/srv/my suite", "core-1.0", "..core/a..b", "/srv/œuvre"):
        assert values.path(good) == good
    for bad in ("", "..", "a/..", "/a/../b", "a:b", "a$b", "a%b", 'a"b', "a'b", "a\\b", "a*b", "a|b"):
        with pytest.raises(ValueError, match="must not"):
            values.path(bad)


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "apikey", "API_KEY", "SECRET_KEY", "MyToken", "PRIVATE_KEY", "AWS_CREDENTIALS"]
)
def test_secrets_have_no_place_in_an_environment_table(name: str) -> None:
    with pytest.raises(ValueError, match="looks like a secret") as caught:
        values.environment({name: "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert values.environment({name: ""}) == {name: ""}, "an empty one is none"


def test_what_only_points_to_a_secret_may_stand_there() -> None:
    harmless = {"TOKEN_URL": "http://localhost/token", "PASSWORD_FILE": "/run/x", "TOKEN_TTL": 5, "KEYBOARD": True}
    assert values.environment(harmless) == {
        "TOKEN_URL": "http://localhost/token", "PASSWORD_FILE": "/run/x", "TOKEN_TTL": "5", "KEYBOARD": "1"
    }  # fmt: skip
    with pytest.raises(ValueError, match="looks like a secret"):
        values.environment({"DATABASE": "postgresql://me:hunter2@localhost/x"})


def test_environment_keeps_what_units_and_shells_would_change() -> None:
    nasty = {"A": "%h $HOME ${X} \"q\" 'q' \\ ; # \t é 日本 🐝 "}
    assert values.environment(nasty) == nasty


@pytest.mark.parametrize("url", ["http://localhost", "https://desk.example:8443/base?x=1", "http://[::1]:8080"])
def test_urls(url: str) -> None:
    assert values.url(url) == url


@pytest.mark.parametrize(
    "bad",
    [
        "localhost:80",
        "ftp://x",
        "http://",
        "http://u@x",
        "http://u:p@x",
        "http://x:0",
        "http://x:99999",
        "http://é",
        "http://a b",
    ],
)
def test_urls_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"URL|user name|port"):
        values.url(bad)


def test_git_sources_and_refs_are_no_options_of_git() -> None:
    for good in (
        "https://forge.example/x.git",
        "git@forge.example:x.git",
        "/srv/git/x.git",
        "ssh://git@forge.example/x",
    ):
        assert values.git_source(good) == good
    for bad in ("--upload-pack=x", "ext::sh -c id", "file:///etc", "https://u:p@x/y", "-x", "https://-x"):
        with pytest.raises(ValueError, match="must"):
            values.git_source(bad)
    assert values.git_ref("v1.2.3-rc/1") == "v1.2.3-rc/1"
    for bad in ("-x", "a..b", "a b", "", "~x", "a:b"):
        with pytest.raises(ValueError, match="must be"):
            values.git_ref(bad)


def test_every_documented_default_of_a_setting_can_be_read() -> None:
    """Where the documentation gives a default as a value, it is one."""
    for setting in SERVICE_SETTINGS:
        if setting.default in ("true", "false", "[]", "{}") or setting.default.isdigit():
            setting.read(tomllib.loads(f"x = {setting.default}")["x"])
        elif setting.kind in ("choice", "duration") and " " not in setting.default:
            setting.read(setting.default)
