"""Every page for everybody: by keyboard, read aloud, without colours, enlarged, on a telephone, behind the gateway."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.campaign import FULL
from tests.system.booted import Sandbox
from tests.system.dashboard import BEHIND_GATEWAY, HELM, Dashboard
from tests.system.keycloak_admin import REALM, Admin
from tests.system.page_images import differences, main_html, page_images
from tests.system.test_page_logs import PAGE, loaded, post

PATHS = (
    "", "logs", "metrics", "security", "jobs", "modules", "apps", "users", "audit",
    "service/codex", "service/codex?tab=settings", "service/codex?tab=output", "service/codex/logs", "nosuch",
)  # fmt: skip
NAMED = {
    "button", "link", "textbox", "checkbox", "combobox", "searchbox", "radio", "switch", "slider", "spinbutton",
    "listbox", "option", "tab", "table", "grid", "treegrid", "navigation", "region", "complementary", "dialog", "img",
    "image", "group",
}  # fmt: skip
"""Roles whose elements say nothing to who does not see them unless they have a name."""
UNNAMED_GROUPS = 'return document.querySelectorAll("details, fieldset, optgroup").length'
TOO_WIDE = """
const wide = document.documentElement.clientWidth, found = [];
const scrolls = (each) => {
  for (let at = each.parentElement; at && at !== document.body; at = at.parentElement) {
    if (getComputedStyle(at).overflowX !== "visible") return true;
  }
};
for (const each of document.body.querySelectorAll("*")) {
  if (!each.checkVisibility({ visibilityProperty: true }) || getComputedStyle(each).clipPath !== "none") continue;
  const { right, width } = each.getBoundingClientRect();
  if (width && right > wide + 1 && !scrolls(each)) found.push(`${each.tagName}.${each.getAttribute("class")} ${right}`);
  const hides = getComputedStyle(each).overflowX !== "visible";
  if (hides && each.matches("button, h1, h2, h3, label") && each.scrollWidth > each.clientWidth + 1) {
    found.push(`cut off: ${each.textContent.trim()}`);
  }
}
if (document.documentElement.scrollWidth > innerWidth) found.push(`page: ${document.documentElement.scrollWidth}`);
return found;
"""
BY_COLOUR_ALONE = """
const found = matchMedia("(forced-colors: active)").matches ? [] : ["no forced colours"];
const chosen = "[aria-pressed=true], .helm-rail [aria-current=page], .helm-segments__item:has(:checked)";
for (const each of document.querySelectorAll(chosen)) {
  const marked = getComputedStyle(each).outlineStyle !== "none";
  if (each.checkVisibility() && !marked) found.push(each.outerHTML.slice(0, 200));
}
for (const each of document.querySelectorAll(".helm-state")) {
  if (each.checkVisibility() && !each.textContent.trim()) found.push(each.outerHTML.slice(0, 200));
}
for (const chart of document.querySelectorAll("[data-chart]")) {
  const lines = [...chart.querySelectorAll(".helm-sample path")].map((each) => each.getAttribute("stroke-dasharray"));
  if (new Set(lines).size !== lines.length) found.push(`lines of ${chart.dataset.chart}: ${lines}`);
}
return found;
"""
MOVES = """
const long = (times) => times.split(",").some((each) => parseFloat(each) > 0.01);
return [...document.querySelectorAll("*")].filter((each) => {
  const { transitionDuration, animationDuration, scrollBehavior } = getComputedStyle(each);
  return long(transitionDuration) || long(animationDuration) || scrollBehavior === "smooth";
}).map((each) => each.getAttribute("class"));
"""
LOOK = """
const names = ["display", "position", "font", "letterSpacing", "textTransform", "textAlign", "color", "cursor",
  "backgroundColor", "boxShadow", "padding", "marginTop", "marginBottom",
  "minHeight", "maxWidth", "appearance", "textDecorationLine", "listStyleType", "opacity", "whiteSpace", "tableLayout",
  "outlineStyle"];
const found = {};
const name = (each) => each.tagName + "." + (each.getAttribute("class") ?? "") + (each.disabled ? ":disabled" : "")
  + (each.matches(":first-child") ? ":first" : "") + (each.matches(":last-child") ? ":last" : "");
for (const each of document.querySelectorAll("main.helm-page *")) {
  if (each.ownerSVGElement || !each.checkVisibility()) continue;
  const style = getComputedStyle(each);
  const up = each.parentElement;
  found[`${name(up.parentElement)} ${name(up)} ${name(each)}`] ??= names.map((each) => `${each}: ${style[each]}`);
}
return [found, document.querySelector(".helm-frame").getBoundingClientRect().width];
"""
FOCUSED = """
const each = document.activeElement;
if (each === document.body) return ["", true];
const shows = (one) => {
  const { outlineStyle, outlineWidth } = getComputedStyle(one);
  return outlineStyle !== "none" && parseFloat(outlineWidth) >= 1;
};
const around = each.closest(".helm-query, .helm-palette__field, .helm-pick__label, .helm-segments__item, .helm-skip");
const name = each.getAttribute("aria-label") ?? (each.labels?.[0]?.textContent || each.title || each.textContent);
return [`${name.trim().replace(/\\s+/g, " ").slice(0, 80)}`, shows(each) || (around !== null && shows(around))];
"""


@pytest.fixture(autouse=True)
def fresh(dashboard: Dashboard) -> Iterator[None]:
    dashboard.console_messages()
    yield
    dashboard.browser.size(1440, 900)


def emulate(page: Dashboard, width: int, height: int, scale: float = 1, **features: str) -> None:
    """A window of so many CSS pixels, and media features: forced_colors="active"."""
    facts = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver = page.browser.driver
    page.browser.do(lambda: driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", facts))
    page.browser.do(lambda: driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media}))


def value(node: dict[str, Any], name: str) -> str:
    return str(node.get(name, {}).get("value", ""))


def not_said(page: Dashboard) -> list[str]:
    """What is wrong with the tree of the page that assistive technology gets."""
    driver = page.browser.driver
    tree = page.browser.do(lambda: driver.execute_cdp_cmd("Accessibility.getFullAXTree", {}))["nodes"]
    nodes = [node for node in tree if not node.get("ignored")]
    roles = [value(node, "role") for node in nodes]
    wrong = []
    nameless = [
        value(node, "role") for node in nodes if value(node, "role") in NAMED and not value(node, "name").strip()
    ]
    # An element that opens and closes is a group without a name; what opens it has one.
    groups = int(page.browser.run(UNNAMED_GROUPS))
    wrong += [role for role in nameless if role != "group"]
    wrong += ["group"] * max(0, nameless.count("group") - groups)
    levels = [
        int(each["value"]["value"])
        for node in nodes
        for each in node.get("properties", ())
        if each["name"] == "level" and value(node, "role") == "heading"
    ]
    if levels.count(1) != 1:
        wrong.append(f"{levels.count(1)} headings of the page")
    wrong += [f"a heading of level {after} after {before}" for before, after in pairwise(levels) if after > before + 1]
    wrong += [f"{roles.count(role)} {role}" for role in ("main", "banner") if roles.count(role) != 1]
    if roles.count("table") > 0 and roles.count("columnheader") < 2 * roles.count("table"):
        wrong.append("tables without heads")
    return wrong


def test_every_page_can_be_read_by_everybody(dashboard: Dashboard) -> None:
    """Names, headings and landmarks; twice as large, on 320 pixels; without colours, without motion."""
    browser, wrong = dashboard.browser, []
    for path in PATHS:
        dashboard.open(path, "owner") if path != "nosuch" else browser.get(HELM + path)
        if "logs" in path:
            loaded(dashboard)
        wrong += [f"{path}: {each}" for each in not_said(dashboard)]
        if path != "nosuch":
            live = "return document.querySelector('[data-live-state]').getAttribute('role')"
            assert browser.run(live) == "status"
        for width, height, scale in ((720, 450, 2), (320, 640, 1)):
            emulate(dashboard, width, height, scale)
            wrong += [f"{path} at {width}: {each}" for each in browser.run(TOO_WIDE)]
        for scheme in ("light", "dark"):
            emulate(dashboard, 1440, 900, forced_colors="active", prefers_color_scheme=scheme)
            wrong += [f"{path}, {scheme}: {each}" for each in browser.run(BY_COLOUR_ALONE)]
        emulate(dashboard, 1440, 900, prefers_reduced_motion="reduce")
        wrong += [f"{path} moves: {each}" for each in browser.run(MOVES)]
    assert wrong == []
    assert [each for each in dashboard.console_messages() if "nosuch" not in each] == []


def test_behind_the_gateway_everything_looks_the_same(dashboard: Dashboard) -> None:
    """Nothing of the gateway's style sheet, which comes later and sets bare elements, reaches what is Helm's.

    Neither the elements' own styles, nor a pixel of the main area.
    """
    browser, mains = dashboard.browser, {}
    paths = PATHS[:-1] if FULL else ("", "metrics", "users", "service/codex?tab=settings")

    def looks(start: str, width: int) -> dict[str, tuple[dict[str, list[str]], float]]:
        found = {}
        for path in paths:
            browser.size(width, 1000)
            browser.get(start + path)
            browser.until_there("[data-theme-switch]:not([hidden])")
            if "logs" in path:
                loaded(dashboard)
            found[path] = browser.run(LOOK)
        return found

    dashboard.open_behind_gateway()
    there = looks(BEHIND_GATEWAY, 1440)
    width = round(there["users"][1])
    browser.size(1440, 1000)
    for path in PATHS[:-1] if FULL else ("", "logs", "security", "modules", "users", "service/codex?tab=settings"):
        browser.get(BEHIND_GATEWAY + path)
        browser.until_there("[data-theme-switch]:not([hidden])")
        if "logs" in path:
            loaded(dashboard)
            browser.until_there("[data-logs-rows] .helm-line")
            browser.until_there(".helm-facet__name")
        mains[path] = main_html(browser)
    themes = ("light", "dark") if FULL else ("light",)
    seen_there = {theme: page_images(browser, f"{BEHIND_GATEWAY}jobs", 1440, mains, theme) for theme in themes}
    dashboard.log_in_as("admin")
    here = looks(HELM, width)
    seen_here = {theme: page_images(browser, f"{HELM}jobs", width, mains, theme) for theme in themes}
    # What is a difference: letters that are a twentieth of a pixel further apart.
    wider = {"": mains[""].replace("</main>", "<style>main * { letter-spacing: 0.05px !important; }</style></main>")}
    wider = page_images(browser, f"{HELM}jobs", width, wider, "light")
    different = []
    for path in paths:
        (look, _), (other, _) = here[path], there[path]
        common = look.keys() & other.keys()
        assert len(common) > 10, path
        for name in common:
            pairs = [pair for pair in zip(look[name], other[name], strict=True) if pair[0] != pair[1]]
            different += [f"{path}: {name}: {one} there {two}" for one, two in pairs]
    assert different == []
    assert dashboard.console_messages() == []
    assert len(differences(browser, wider, seen_here["light"])) == 1
    found = {theme: differences(browser, seen_here[theme], seen_there[theme]) for theme in themes}
    assert not any(found.values()), found


class Keys:
    """What is done by keys alone, with the focus in sight all the time."""

    def __init__(self, page: Dashboard) -> None:
        self.page = page

    def focused(self) -> str:
        name, seen = self.page.browser.run(FOCUSED)
        assert seen, f"the focus can't be seen: {name}"
        return str(name)

    def tab_to(self, wanted: str, most: int = 60, back: bool = False) -> None:
        passed: list[str] = []
        for _ in range(most):
            self.page.press("Shift+Tab" if back else "Tab")
            passed.append(self.focused())
            if passed[-1].startswith(wanted):
                return
        pytest.fail(f"no way by Tab to {wanted}: {passed}")

    def palette(self, words: str, first: str) -> None:
        """Does what the palette calls FIRST."""
        browser = self.page.browser
        self.page.press("Control+k")
        browser.until_there("dialog[open] .helm-palette__input")
        assert self.focused() == "Search services, pages and actions"
        self.page.press(*words)
        browser.until(lambda driver: first in driver.find_element("css selector", ".helm-palette__item").text)
        self.page.press("Enter")


def test_ten_tasks_by_keyboard_alone(dashboard: Dashboard, demo: Sandbox) -> None:
    """Also that the focus is where it was after a dialog, a menu, and an update of what it is in."""
    browser, keys = dashboard.browser, Keys(dashboard)
    service, user = f"keys-{secrets.token_hex(3)}", f"keys-{secrets.token_hex(3)}"
    now = datetime.now(UTC)
    levels = ("INFO", "WARNING", "ERROR")
    entries = [
        {"level": levels[n % 3], "message": f"line {n}", "timestamp": (now - timedelta(seconds=90 - 3 * n)).isoformat()}
        for n in range(30)
    ]
    post(demo, service, entries)
    dashboard.open("", "owner")
    browser.until_there("#service-ticker")
    # Past what every page has.
    dashboard.press("Tab")
    assert keys.focused() == "Skip to content"
    dashboard.press("Enter", "Tab")
    assert keys.focused() == "Filter services"
    # 1: find a service. 2: restart it, after the question. 3: cancel a dialog.
    dashboard.press(*"ticker")
    browser.until(lambda driver: not driver.find_element("css selector", "#service-core").is_displayed())
    dashboard.press("Escape", "j")
    keys.tab_to("Actions for ticker")
    for finish in ("Escape", "Enter"):
        dashboard.press("Enter")
        browser.until_there(".helm-menu [data-verb=restart]")
        assert keys.focused() == "Restart"
        dashboard.press("Enter")
        browser.until_there("dialog[open] button[type=submit]")
        assert keys.focused() == "Restart"
        dashboard.press(finish)
        if finish == "Enter":
            browser.until_there("dialog .helm-ending--ok")
            assert keys.focused() == "Close"
            dashboard.press("Enter")
        browser.until(lambda driver: not driver.find_elements("css selector", "dialog"))
        assert keys.focused() == "Actions for ticker", "where it was"
    # What is under the focus changes.
    demo.helmctl("stop", "ticker")
    browser.until_there("#service-ticker [data-menu~=start]")
    assert keys.focused() == "Actions for ticker"
    demo.helmctl("start", "ticker")
    browser.until_there("#service-ticker [data-menu~=restart]")
    assert keys.focused() == "Actions for ticker"
    # 4: sort a table; updates leave its head the focus. 5: choose columns.
    browser.get(HELM)
    browser.until_there("[data-table-sort=service]")
    keys.tab_to("Columns")
    dashboard.press("Enter")
    browser.until_there(":popover-open")
    dashboard.press("Tab", "Space", "Space")
    dashboard.press("Escape")
    assert keys.focused() == "Columns" and browser.texts(":popover-open") == []
    keys.tab_to("Service")
    dashboard.press("Enter", "Enter")
    assert "sort=-service" in browser.url
    assert browser.texts("tr[data-row] .helm-table__cell--name .helm-link")[0] == "ticker"
    browser.run("window.parts = 0; document.addEventListener('helm:part', () => window.parts++)")
    browser.run("document.querySelector('[data-live-part=services]').dataset.liveEvery = '1'")
    browser.until(lambda driver: driver.execute_script("return window.parts") > 1)
    assert keys.focused() == "Service"
    assert browser.texts("tr[data-row] .helm-table__cell--name .helm-link")[0] == "ticker"
    # 6: colours.
    theme = "return document.querySelector('[data-theme-switch]').title"
    before = browser.run(theme)
    keys.palette("colours", "Change colours")
    browser.until(lambda driver: driver.execute_script(theme) != before)
    dashboard.press("Control+k", *"colours")
    browser.until(lambda driver: "colours" in driver.find_element("css selector", ".helm-palette__item").text)
    dashboard.press("Enter", "Control+k", *"colours", "Enter")
    browser.until(lambda driver: driver.execute_script(theme) == before)
    # A key that comes in the same task as the end of the palette opens it again.
    dashboard.press("Control+k", *"colours")
    browser.until(lambda driver: "colours" in driver.find_element("css selector", ".helm-palette__item").text)
    browser.run(
        "document.querySelector('.helm-palette').close();"
        "const how = {key: 'k', ctrlKey: true, bubbles: true, cancelable: true};"
        "document.body.dispatchEvent(new KeyboardEvent('keydown', how))"
    )
    browser.until_there(".helm-palette[open]")
    dashboard.press("Escape")
    # 7: the logs of a service; a query with completion; 8: open a line; 9: copy it; 10: what is around it.
    dashboard.press("g", "l")
    browser.until_at(f"{HELM}logs")
    browser.until_there("[data-theme-switch]:not([hidden])")
    loaded(dashboard)
    dashboard.press("/", *f"service:{service}", "Enter")
    browser.until(lambda driver: service in driver.current_url)
    loaded(dashboard)
    dashboard.press(*"lev")
    browser.until_there("#logs-choice-0")
    keys.focused()
    dashboard.press("Arrow_down", "Enter", *"err")
    browser.until(lambda driver: "error" in driver.find_element("id", "logs-completions").text.lower())
    dashboard.press("Arrow_down", "Enter", "Enter")
    browser.until(lambda driver: "level" in driver.current_url)
    loaded(dashboard)
    assert len(browser.run(f"return {PAGE}.feed.window.rows")) == 10
    keys.tab_to("Skip to the lines")
    dashboard.press("Enter")
    keys.tab_to("Log lines", 20)
    dashboard.press("k", "k", "Enter")
    browser.until_there(".helm-line--open .helm-entry")
    keys.tab_to("Copy text")
    dashboard.press("Enter")
    browser.until(lambda driver: driver.find_element("css selector", ".helm-logs__message").text == "Text copied")
    assert keys.focused() == "Copy text"
    keys.tab_to("Around this line", back=True)
    dashboard.press("Enter")
    browser.until(lambda driver: "at=" in driver.current_url)
    loaded(dashboard)
    # 11: zoom.
    browser.get(f"{HELM}logs?query=service:{service}")
    loaded(dashboard)
    keys.tab_to("Skip to the lines")
    dashboard.press("Enter")
    keys.tab_to("Lines over time", 1)
    dashboard.press("Arrow_left", "Shift+Arrow_left", "Shift+Arrow_left", "Shift+Arrow_left", "Enter")
    browser.until(lambda driver: "from=" in driver.current_url and "to=" in driver.current_url)
    # 12: a new user.
    keys.palette("users", "Users")
    browser.until_at(f"{HELM}users")
    browser.until_there("[data-user-import][title]")
    keys.tab_to("New user")
    dashboard.press("Enter")
    browser.until_there("dialog[open] [name=username]")
    assert keys.focused().startswith("Username")
    dashboard.press(*user)
    keys.tab_to("Email")
    dashboard.press(*f"{user}@example.org")
    keys.tab_to("Create")
    dashboard.press("Enter")
    try:
        browser.until_there("dialog[open] .helm-ending--ok")
        admin = Admin(demo)
        (made,) = admin("GET", f"/{REALM}/users?exact=true&username={user}").json()
    finally:
        demo.helmctl("users", "delete", user, check=False)
    assert made["email"] == f"{user}@example.org"
    assert dashboard.console_messages() == []
