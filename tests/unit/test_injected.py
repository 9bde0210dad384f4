"""What is learned from pages that the gateway has passed on, and which policy is made of it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.identity.injected import (
    MAX_SCRIPTS,
    NOTHING_INJECTED,
    Injected,
    InjectedError,
    LearnedPage,
    learned,
    learned_in,
    learned_text,
    source_of,
)
from helmd.model.identity.realm import PROBE_USER
from helmd.web.pages.policy import gateway_policy
from helmd.web.pages.probe import ProbePage

SUITE = Path(__file__).resolve().parents[1] / "suite"
MARKER = "helm-page-probe-0123"
URL = "https://desk.example.org/helm/page-probe"
SERVICES = ("nexus", "codex", "helm")
HEADERS = {"X-Forwarded-Host": "desk.example.org", "X-Forwarded-Proto": "https"}


def sample_gateway() -> ModuleType:
    """Return what the sample gateway does to pages."""
    spec = importlib.util.spec_from_file_location("sample_page", SUITE / "nexus/page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(head: str = "", body: str = "") -> str:
    text = ProbePage(MARKER)._page
    return text.replace("</head>", f"{head}</head>").replace("</body>", f"{body}</body>")


def of(*pages: str) -> Injected:
    return learned(pages * 2 if len(pages) == 1 else pages, MARKER, URL, (PROBE_USER,), SERVICES)


def test_the_page_alone_has_nothing() -> None:
    assert of(page()) == NOTHING_INJECTED


def test_the_scripts_of_the_sample_gateway() -> None:
    """Exactly what it puts between the tags; the one that names the user is recognized."""
    sample = sample_gateway()
    scripts = [sample._COLLAPSED, sample._BACKDROP, sample._BEES, sample._THEME]
    found = of(sample.decorated(page(), "helm"))
    assert found == Injected(tuple(source_of(each) for each in scripts))
    greeting = of(sample.decorated(page(), "helm", PROBE_USER))
    assert greeting.scripts == found.scripts
    assert greeting.blocked == (
        'the script that begins with “document.getElementById("side-panel").t…” differs by user or session',
    )
    policy = gateway_policy(HEADERS, found)
    assert re.findall(r"script-src ([^;]*);", policy) == [
        " ".join(["https://desk.example.org/helm/static/", *(f"'{each}'" for each in found.scripts)])
    ]
    assert "unsafe" not in policy and "require-trusted-types-for 'script'; trusted-types helm" in policy


def test_a_source_is_the_hash_of_the_exact_text() -> None:
    """The example of the specification (CSP Level 3, section 2.3.1), and what browsers make of line ends."""
    assert source_of("alert('Hello, world.');") == "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
    assert of(page("<script>a\r\nb &amp;\rc</script>")).scripts == (source_of("a\nb &amp;\nc"),)
    assert of(page("<script>if (a<b) '</p>'</script>")).scripts == (source_of("if (a<b) '</p>'"),)


def test_what_differs_between_two_sessions_is_not_allowed() -> None:
    first, second = (page(f"<script>var csrf = {n}</script><script>1</script><style>a{{}}</style>") for n in (1, 2))
    found = of(first, second)
    assert (found.scripts, found.styles) == ((source_of("1"),), (source_of("a{}"),))
    assert found.blocked == ("the script that begins with “var csrf = 1” differs by user or session",)
    assert of(page(f"<style>.{PROBE_USER.upper()} {{}}</style>")).styles == ()


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/static/js/panel.js?v=1", "/static/js/panel.js"),
        ("https://desk.example.org/static/a.js", "/static/a.js"),
        ("https://desk.example.org:443/static/a.js#x", "/static/a.js"),
        ("//desk.example.org/static/a.js", "/static/a.js"),
        ("/codex/static/evil.js", ""),
        ("evil.js", ""),
        ("/static/../codex/evil.js", ""),
        ("/static/%2e%2e/codex/evil.js", ""),
        ("//evil.example/a.js", ""),
        ("https://desk.example.org:8443/a.js", ""),
        ("https://desk.example.org.evil.example/a.js", ""),
        ("http://desk.example.org/a.js", ""),
        ("https://desk.example.org:x/a.js", ""),
        ("data:text/javascript,1", ""),
        ("http://[x/", ""),
        ("/", ""),
        ("", ""),
        ("/static/a.js;script-src *", ""),
        ("/static/a b.js", ""),
        ("/static/ä.js", ""),
        ("/" + "a" * 400, ""),
    ],
)
def test_scripts_by_url_are_the_gateways_own(source: str, path: str) -> None:
    found = of(page(f'<script src="{source}"></script>'))
    assert found.script_paths == ((path,) if path else ())
    assert len(found.blocked) == (not path)
    policy = gateway_policy(HEADERS, found)
    assert policy.count(";") == gateway_policy(HEADERS).count(";")
    assert (f" https://desk.example.org{path}" in policy) or not path
    assert "'none'" in gateway_policy({}, found), "without a name nothing is allowed by its path"


def test_what_does_not_work_is_said() -> None:
    body = (
        '<p onclick="a()" ONLOAD=b() style="color: red"><a href=" JavaScript:c()">x</a>'
        '<link rel="Stylesheet preload" href="https://fonts.example/a.css"><link rel=stylesheet href="/static/b.css">'
        "<script>box.innerHTML = text</script><script>if (a.innerHTML == b) c()</script>"
        '<script type="application/json">{"user": 1}</script>'
    )
    found = of(page(body=body))
    assert found.scripts == (source_of("box.innerHTML = text"), source_of("if (a.innerHTML == b) c()"))
    assert found.blocked == (
        "the script that begins with “box.innerHTML = text” makes markup or code from text, which Trusted Types refuse",
        "the style sheet https://fonts.example/a.css is of another origin",
        "3 scripts in attributes or links",
        "1 style attribute",
    )


def test_a_page_of_somebody_else_teaches_nothing() -> None:
    """One without the text; one with the text only in a script; and one that adds more than a policy should hold."""
    for text in ("", "<p>Log in</p>", f"<script>{MARKER}</script>"):
        with pytest.raises(InjectedError, match="did not pass on"):
            of(text)
    with pytest.raises(InjectedError, match=f"more than {MAX_SCRIPTS}"):
        of(page("".join(f"<script>{n}</script>" for n in range(MAX_SCRIPTS + 1))))


@given(st.text(), st.text())
def test_any_page_gives_a_policy_without_surprises(head: str, body: str) -> None:
    try:
        found = of(page(head, body))
    except InjectedError:
        return
    policy = gateway_policy(HEADERS, found)
    assert policy.count(";") == gateway_policy(HEADERS).count(";") and "unsafe" not in policy
    assert learned_in(learned_text(LearnedPage("run", 1.0, 2.0, found))).injected == found


def test_what_is_stored_is_checked_when_it_is_read() -> None:
    kept = LearnedPage("run", 2.5, 1.0, Injected((source_of("1"),), (source_of("2"),), ("/a.js",), ("x",)), "why", "do")
    text = learned_text(kept)
    assert learned_in(text) == kept
    good = source_of("1")
    for old, new in (
        (good, "unsafe-inline"),
        (good, f"{good}' 'unsafe-eval"),
        ("/a.js", "/a.js; script-src *"),
        ('"run": "run"', '"run": 5'),
        ('"tried": 2.5', '"tried": true'),
        ('"scripts": [', '"other": ['),
        (text, "[]"),
        (text, "{}"),
        (text, "x"),
    ):
        with pytest.raises(ValueError, match=r"."):
            learned_in(text.replace(old, new, 1))
