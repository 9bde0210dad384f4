"""One value in a configuration file of a module: set where it belongs, with everything else as it was."""

import configparser
import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.config.config_text import value_in, with_value
from helmd.model.config.file_format import format_of

URI = "postgresql://tickets:pa-ss_w0rd@/tickets_db?host=/run/user/1000/hivematrix/postgres-suite&port=5499"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("instance/codex.conf", "ini"),
        ("settings.ini", "ini"),
        ("a/config.json", "json"),
        ("config.toml", "toml"),
        (".env", "env"),
        ("conf/.env.local", "env"),
        ("prod.env", "env"),
        (".flaskenv", "env"),
    ],
)
def test_formats_by_name(file: str, kind: str) -> None:
    assert format_of(file) == kind


INI = """; comment
[sync]
interval = 5
Database_URL = of another section

[database]
# the URI
connection_string = sqlite:///old.db
    , continued
pool_size: 10

[PSA]
password = 100%sure
"""


def test_ini() -> None:
    changed = with_value(INI, "ini", "database", "connection_string", URI)
    expected = INI.replace("connection_string = sqlite:///old.db\n    , continued\n", f"connection_string = {URI}\n")
    assert changed == expected
    for parser in (configparser.RawConfigParser(), configparser.ConfigParser()):
        parser.read_string(changed)
        assert parser.get("database", "connection_string") == URI
    assert with_value(changed, "ini", "database", "connection_string", URI) == changed
    added = with_value(INI, "ini", "database", "echo", "no")
    assert added == INI.replace("[database]\n", "[database]\necho = no\n")
    fresh = with_value("", "ini", "database", "connection_string", URI)
    assert fresh == f"[database]\nconnection_string = {URI}\n"
    assert with_value(INI, "ini", "new", "a", "b") == f"{INI}\n[new]\na = b\n"
    assert value_in(INI, "ini", "PSA", "password") == "100%sure"


def test_variables() -> None:
    text = "# mine\nSECRET_KEY=abc\nexport DSN='old'\n"
    assert with_value(text, "env", "", "DSN", URI) == f"# mine\nSECRET_KEY=abc\nexport DSN={URI}\n"
    assert with_value(text, "env", "", "OTHER", "x") == f"{text}OTHER=x\n"
    assert value_in(text, "env", "", "DSN") == "old"
    assert with_value("A=1", "env", "", "B", "2") == "A=1\nB=2\n"


def test_json() -> None:
    text = '{"name": "Bücher", "database": {"pool": 3, "url": null}, "list": [1, 2]}'
    read = json.loads(with_value(text, "json", "database", "url", URI))
    assert read == {"name": "Bücher", "database": {"pool": 3, "url": URI}, "list": [1, 2]}
    assert list(read) == ["name", "database", "list"]
    assert json.loads(with_value("", "json", "a.b", "c", "d")) == {"a": {"b": {"c": "d"}}}
    assert value_in(text, "json", "", "name") == "Bücher"


TOML = """# comment
title = "a"
[database] # here
url = "old" # and there
pool = 3
[database.replica]
url = "second"
"""


def test_toml() -> None:
    changed = with_value(TOML, "toml", "database", "url", URI)
    assert tomllib.loads(changed)["database"] == {"url": URI, "pool": 3, "replica": {"url": "second"}}
    assert changed.startswith('# comment\ntitle = "a"\n[database] # here\n')
    changed = with_value(TOML, "toml", "database.replica", "url", URI)
    assert tomllib.loads(changed)["database"]["replica"]["url"] == URI
    assert tomllib.loads(with_value(TOML, "toml", "", "url", URI))["url"] == URI
    assert with_value("", "toml", "x", "y", "z") == '[x]\ny = "z"\n'


@pytest.mark.parametrize(
    ("text", "kind", "section", "key"),
    [
        ("[database\n", "toml", "database", "url"),
        ('database = "text"\n', "toml", "database", "url"),
        ('database = { url = "inline", pool = 3 }\n', "toml", "database", "url"),
        ('[database]\nurl = """\nseveral\nlines"""\n', "toml", "database", "url"),
        ("{", "json", "database", "url"),
        ("[]", "json", "database", "url"),
        ('{"database": "text"}', "json", "database", "url"),
        ("no section\n", "ini", "database", "url"),
        ("[a]\nb = 1\nb = 2\n", "ini", "a", "b"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused(text: str, kind: str, section: str, key: str) -> None:
    with pytest.raises(ValueError):
        with_value(text, kind, section, key, URI)


names = st.text("abcdefgXYZ_", min_size=1, max_size=6)
values = st.text("abc 0:/=%#;[]", max_size=8).map(str.strip)


@given(st.dictionaries(names, st.dictionaries(names.map(str.lower), values, max_size=3), max_size=3), names, names)
def test_other_settings_of_an_ini_file_stay(tables: dict[str, dict[str, str]], section: str, key: str) -> None:
    text = "".join(
        f"[{name}]\n" + "".join(f"{each} = {value}\n" for each, value in table.items())
        for name, table in tables.items()
    )
    key = key.lower()
    parser = configparser.RawConfigParser()
    parser.read_string(with_value(text, "ini", section, key, URI))
    expected = {name: dict(table) for name, table in tables.items()}
    expected.setdefault(section, {})[key] = URI
    assert {name: dict(parser.items(name)) for name in parser.sections()} == expected
