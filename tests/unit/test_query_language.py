"""The query language: what is parsed, what is refused and where, and which entries meet a query."""

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter, log_filter_of
from helmd.model.logs.query_language.complete import completions
from helmd.model.logs.query_language.evaluate import meets, wildcard_matches
from helmd.model.logs.query_language.expressions import UnsupportedExpressionError, common_expression
from helmd.model.logs.query_language.nodes import (
    All,
    Among,
    Any,
    Contains,
    ContextIs,
    ContextWild,
    Has,
    HasContext,
    Matches,
    Node,
    Not,
    NumberIs,
    TimeIs,
    Wild,
)
from helmd.model.logs.query_language.parse import QUERY_LIMIT, QueryError, parsed_query

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HEALTH = Contains("health check")
WARNING = Among("level", frozenset({"WARNING", "ERROR", "CRITICAL"}))


def service(*names: str) -> Among:
    return Among("service_name", frozenset(names))


PARSED: list[tuple[str, Node | None]] = [
    ("", None),
    (" \n", None),
    ("timeout", Contains("timeout")),
    ('"health check"', HEALTH),
    (r'"a \"b\" \\ *"', Contains('a "b" \\ *')),
    ('-"health check"', Not(HEALTH)),
    ("NOT NOT x", Not(Not(Contains("x")))),
    ("a b", All((Contains("a"), Contains("b")))),
    ("a AND b", All((Contains("a"), Contains("b")))),
    ("a OR b c", Any((Contains("a"), All((Contains("b"), Contains("c")))))),
    ("(a OR b) c", All((Any((Contains("a"), Contains("b"))), Contains("c")))),
    ("-(a b)", Not(All((Contains("a"), Contains("b"))))),
    ("or and not", All((Contains("or"), Contains("and"), Contains("not")))),
    ("ORDER", Contains("ORDER")),
    ("f(x) (g(y))", All((Contains("f(x)"), Contains("g(y)")))),
    ("- x", All((Contains("-"), Contains("x")))),
    ("12:30:01", Contains("12:30:01")),
    ("service:codex", service("codex")),
    ("service_name=Codex", service("codex")),
    ("service:codex,core", service("codex", "core")),
    ("service:co*", Wild("service_name", ("co", ""))),
    ("service:co*,nexus", Any((service("nexus"), Wild("service_name", ("co", ""))))),
    ("service!=core", Not(service("core"))),
    ("level:error", Among("level", frozenset({"ERROR"}))),
    ("level:warn,fatal", Among("level", frozenset({"WARNING", "CRITICAL"}))),
    ("level>=warning", WARNING),
    ("level<info", Among("level", frozenset({"DEBUG"}))),
    ("level<=info", Among("level", frozenset({"DEBUG", "INFO"}))),
    ("level>error", Among("level", frozenset({"CRITICAL"}))),
    ("source:http", Among("source", frozenset({"http"}))),
    ("stream:stderr,stdout", Among("stream", frozenset({"stderr", "stdout"}))),
    ("trace:abc", Among("trace_id", frozenset({"abc"}))),
    ("user:ann@example.org", Among("user_id", frozenset({"ann@example.org"}))),
    ('user:"a*b"', Among("user_id", frozenset({"a*b"}))),
    ('user:""', Among("user_id", frozenset({""}))),
    ('pattern:""', Wild("message", ("",))),
    ("host:web*", Wild("hostname", ("web", ""))),
    ("user:*", Has("user_id")),
    ("has:trace", Has("trace_id")),
    ("has:context", Has("context")),
    ("has:context.a.b", HasContext(("a", "b"))),
    ("pid:12", NumberIs("process_id", "=", 12)),
    ("id>4", NumberIs("id", ">", 4)),
    ("time>=2026-01-31T12:00:00Z", TimeIs(">=", NOON)),
    ('time<"2026-01-31 13:00+01:00"', TimeIs("<", NOON)),
    ("context.status>=500", ContextIs(("status",), ">=", None, Decimal(500))),
    ("context.status:500", ContextIs(("status",), "=", "500", Decimal(500))),
    ("context.http.method:GET", ContextIs(("http", "method"), "=", "GET", None)),
    ('context."a key".b:"x y"', ContextIs(("a key", "b"), "=", "x y", None)),
    ("context.path:/api/*", ContextWild(("path",), ("/api/", ""))),
    ("context.path:*", HasContext(("path",))),
    ('context.path:""', ContextIs(("path",), "=", "", None)),
    ("context.n!=-1.5", Not(ContextIs(("n",), "=", "-1.5", Decimal("-1.5")))),
    ("/time.?out/", Matches("time(?:.)?out")),
    ("/a b/ c", All((Matches("a b"), Contains("c")))),
    ("/a\\/b/", Matches("a\\/b")),
    ("(/x/)", Matches("x")),
    ("/api/logs", Contains("/api/logs")),
    ("/etc", Contains("/etc")),
    ("message:/x+/", Matches("(?:x)+")),
    ("message:abc", Contains("abc")),
    ('pattern:"user * logged in"', Wild("message", ("user ", " logged in"))),
    ('pattern:"2 \\* 3 = *"', Wild("message", ("2 * 3 = ", ""))),
]


@pytest.mark.parametrize(("query", "node"), PARSED, ids=[query for query, _ in PARSED])
def test_what_is_parsed(query: str, node: Node | None) -> None:
    assert parsed_query(query) == node


REFUSED = [
    ("sevice:codex", 1, "no field 'sevice'"),
    ("a http://x", 3, "no field 'http'"),
    ("service.x:1", 1, "no field service.x"),
    ("context:x", 1, "a key is missing"),
    ('context."":x', 1, "a key is empty"),
    ("a level:loud", 3, "unknown level"),
    ("level:,", 1, "level: a value is missing"),
    ("service:../x", 1, "not a service name"),
    ("service:,", 1, "a value is missing"),
    ("service>x", 1, "can't be compared"),
    ("service:", 1, "a value is missing"),
    ('service:""', 1, "a value is missing"),
    ('message:""', 1, "empty text"),
    ('level:""', 1, "a value is missing"),
    ("has>trace", 1, "can't be compared"),
    ("has:service", 1, "nothing that an entry may lack"),
    ("has:context..a", 1, "not a path"),
    ("source:tty", 1, "source must be one of"),
    ("pid:x", 1, "not a number"),
    ("pid:" + "9" * 19, 1, "not a number"),
    ("time>=yesterday", 1, "not an ISO 8601 timestamp"),
    ("time>=9999-12-31T23:59:59-14:00", 1, "not an ISO 8601 timestamp"),
    ("context.a>x", 1, "not a number"),
    ("context.a>1*", 1, "can't be compared"),
    ("context.a:", 1, "a value is missing"),
    ('"open', 1, "quote is not closed"),
    ('"a"b', 4, "white space is missing"),
    ('""', 1, "empty text"),
    ("(a", 1, "is not closed"),
    ("a)", 2, ") without a ("),
    ("()", 2, "a term is missing"),
    ("a OR", 5, "a term is missing"),
    ("OR a", 1, "a term is missing"),
    ("AND a AND", 10, "missing after AND"),
    ("-", 1, "nothing here to exclude"),
    ("NOT", 1, "nothing here to exclude"),
    ("x -)", 3, "nothing here to exclude"),
    ("/(/", 1, "regular expression"),
    ("/(a)\\1/", 1, "back references"),
    ("/(?s)a/", 1, "flags"),
    ("/(?i:a)/", 1, "flags"),
    ("/a{256}/", 1, "repetitions"),
    ("/(?<=a+)b/", 1, "look-behind"),
    ("/a++/", 1, "not supported"),
    ("a\0b", 2, "NUL"),
    ("a \ud800", 3, "surrogate"),
    ("x" * (QUERY_LIMIT + 1), QUERY_LIMIT + 1, "at most"),
    ("(" * 40 + "a" + ")" * 40, 17, "nested"),
    ("-" * 40 + "a", 17, "nested"),
    ("a " * 65, 129, "more than 64 terms"),
]


@pytest.mark.parametrize(("query", "character", "what"), REFUSED, ids=[query[:30] for query, _, _ in REFUSED])
def test_what_is_refused_is_said_with_its_place(query: str, character: int, what: str) -> None:
    with pytest.raises(QueryError) as caught:
        parsed_query(query)
    assert caught.value.sentence.startswith("query: ") and what in caught.value.sentence
    assert caught.value.sentence.endswith(f"(at character {character})"), caught.value.sentence
    assert caught.value.position == character - 1
    assert caught.value.sentence.isprintable()


@given(st.one_of(st.text(max_size=80), st.text(alphabet='a:>=<-()"/\\*. ORNTDcontexlv[]{}?+^$|', max_size=60)))
def test_any_text_is_parsed_or_refused(query: str) -> None:
    with suppress(QueryError):
        node = parsed_query(query)
        assert isinstance(meets(node, ROW, 1), bool)
        wanted = log_filter_of({"query": query})
        assert hash(wanted) == hash(log_filter_of({"query": query}))


ROW = LogRow(
    NOON,
    "codex",
    "ERROR",
    "GET /x took 12 ms\nTimeOut",
    {"status": 503, "ms": 1.5, "size": "12", "ok": True, "none": None, "http": {"path": "/x"}, "a.b": "flat", "l": [1]},
    "abc",
    None,
    "web1",
    7,
    "http",
)

MET = r"""
timeout
-health
"took 12"
service:codex level>=warning -"health check" trace:abc context.status>=500 /time.?out/
service:co*
-user:x
-has:user
context.status:503
context.status<504
context.status!=500
context.ms>1.4
context.ms:1.50
context.size>11
context.ok:true
context.http.path:/x
context.http.path:/*
context.a.b:flat
has:context.ok
-has:context.none
-context.none:x
-context.l:1
-context.missing<1
-context.http>1
pid>=7
id:1
/^get.*timeout$/
/\bms\b/
/ms\nt/
pattern:"GET * took * ms*"
time:2026-01-31T12:00:00Z
level:debug OR host:web*
"""
NOT_MET = r"""
health
-timeout
user:x
has:user
trace:ABC
context.http.path:/X
has:context.none
context.status>503
context.ok:1
context.missing:1
id>1
/^timeout/
/ms$/
pattern:"took * ms"
time>2026-01-31T12:00:00Z
-level:error
(level:debug OR host:w) service:codex
"""


@pytest.mark.parametrize("query", MET.strip().split("\n"))
def test_queries_that_are_met(query: str) -> None:
    assert meets(parsed_query(query), ROW, 1)


@pytest.mark.parametrize("query", NOT_MET.strip().split("\n"))
def test_queries_that_are_not_met(query: str) -> None:
    assert not meets(parsed_query(query), ROW, 1)


def test_conditions_with_an_index_go_into_fields_of_the_filter() -> None:
    query = "service:codex,core level>=warning -level:critical trace:t user:u source:http time>=2026-01-31T12:00:00Z"
    wanted = log_filter_of({"query": f"{query} time<2026-02-01", "service": "codex,nexus"})
    assert wanted == LogFilter(
        services=frozenset({"codex"}),
        levels=frozenset({"WARNING", "ERROR"}),
        trace_id="t",
        user_id="u",
        sources=frozenset({"http"}),
        start=NOON,
        end=datetime(2026, 2, 1, tzinfo=UTC),
    )
    assert log_filter_of({"query": "refused connection -x"}) == LogFilter(
        text="connection", rest=All((Contains("refused"), Not(Contains("x"))))
    )
    assert log_filter_of({"query": "/x+/"}) == LogFilter(text="(?:x)+", mode="regex")
    assert log_filter_of({"query": 'pattern:"a * long text"'}).text == " long text"
    assert log_filter_of({"query": "more", "q": "text"}) == LogFilter(text="text", rest=Contains("more"))
    assert log_filter_of({"query": "trace:a trace:b"}) == LogFilter(
        trace_id="a", rest=Among("trace_id", frozenset({"b"}))
    )


def test_few_entries_are_found_by_an_index() -> None:
    for query, few in (("trace:a -x", True), ("id:7", True), ("id>7", False), ("-id:7", False), ("x", False)):
        assert log_filter_of({"query": query}).few == few, query


def test_what_rollups_can_count() -> None:
    assert log_filter_of({"query": "-service:core level>=error (service:c* OR level:critical)"}).counted
    assert not log_filter_of({"query": "-trace:x"}).counted
    assert not log_filter_of({"query": "x"}).counted
    assert log_filter_of({"query": "x OR /y/"}).store_only and not log_filter_of({"query": "x"}).store_only


@given(st.lists(st.text(alphabet="ab*", max_size=3), min_size=1, max_size=4), st.text(alphabet="ab*", max_size=8))
def test_wildcards(parts: list[str], text: str) -> None:
    import re

    assert wildcard_matches(tuple(parts), text) == bool(re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL))


@pytest.mark.parametrize("pattern", ["(?P<a>x)(?P=a)", "(?>a)", "a{1,999}", "\0", "[", "(?x) a", "\ud800"])
def test_expressions_that_are_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedExpressionError):
        common_expression(pattern)


def test_how_terms_go_on() -> None:
    assert completions("lev", ()) == ["level>=", "level:"]
    assert completions("-str", ()) == ["-stream:"]
    assert completions("level>=w", ()) == ["level>=warning"]
    assert completions("service:co", ("core", "codex", "nexus")) == ["service:codex", "service:core"]
    assert completions("-source:h", ()) == ["-source:helm", "-source:http"]
    assert completions("user:x", ()) == completions("zzz", ()) == []
