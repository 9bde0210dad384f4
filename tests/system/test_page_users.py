"""The page of users: found, made, changed and removed with a browser, then seen in Keycloak."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox, until
from tests.system.dashboard import HELM, Dashboard, dashboard_in
from tests.system.keycloak_admin import REALM, Admin, Person, log_in
from tests.system.test_page_service import clean, confirm, ended, press

MARK = secrets.token_hex(3)
NAME = f"page-{MARK}"


@pytest.fixture(scope="module")
def pages(demo: Sandbox) -> Iterator[Dashboard]:
    with dashboard_in(demo) as made:
        yield made


@pytest.fixture(scope="module")
def admin(demo: Sandbox) -> Iterator[Admin]:
    made = Admin(demo)
    try:
        yield made
    finally:
        for each in made("GET", f"/{REALM}/users?search=*{MARK}*&max=200").json():
            made("DELETE", f"/{REALM}/users/{each['id']}")


def found(admin: Admin, name: str) -> dict[str, Any]:
    """The user as Keycloak has it; empty for none."""
    users = admin("GET", f"/{REALM}/users?exact=true&username={quote(name)}").json()
    return dict(users[0]) if users else {}


def groups(admin: Admin, name: str) -> set[str]:
    return {each["name"] for each in admin("GET", f"/{REALM}/users/{found(admin, name)['id']}/groups").json()}


def made(admin: Admin, name: str, **facts: Any) -> str:
    body = {"username": name, "enabled": True, "email": f"{name}@example.org", "firstName": "Ada", **facts}
    assert admin("POST", f"/{REALM}/users", body).code == 201
    return str(found(admin, name)["id"])


def do(pages: Dashboard, verb: str) -> None:
    pages.browser.until_there(f"[data-user-do={verb}]:not([disabled])")
    pages.browser.click(f"[data-user-do={verb}]")


def close(pages: Dashboard) -> None:
    press(pages, "Close", "dialog")


def focused(pages: Dashboard, selector: str) -> bool:
    return bool(pages.browser.run("return document.activeElement?.matches(arguments[0])", selector))


def shows(pages: Dashboard, *texts: str) -> None:
    """The details come to have TEXTS by themselves."""

    def seen(driver: Any) -> bool:
        said = driver.find_element(By.CSS_SELECTOR, ".helm-user").text
        return all(each in said for each in texts)

    pages.browser.until(seen)


def choose(pages: Dashboard, name: str, value: str) -> None:
    """Chooses from a list of the filter."""
    pages.browser.click(f"select[name={name}] option[value={value}]")


def test_a_user_from_the_first_day_to_the_last(pages: Dashboard, admin: Admin) -> None:
    browser = pages.browser
    pages.open("users")
    press(pages, "New user")
    browser.until_there("dialog[open] [name=username]")
    pages.check_dialog("users.js: New user")
    browser.type("dialog[open] [name=username]", NAME)
    browser.type("dialog[open] [name=email]", f"{NAME}@example.org")
    browser.type("dialog[open] [name=firstName]", "Ada")
    browser.type("dialog[open] [name=lastName]", "Lovelace")
    browser.click("dialog[open] [type=submit]")
    assert f"{NAME} was created" in ended(pages)
    browser.until_there("[data-secret]")
    password = browser.text("[data-secret]")
    close(pages)
    browser.until_there(".helm-user [data-user-do=edit]")
    assert groups(admin, NAME) == {"client"} and password not in browser.text("main")
    lasting = secrets.token_urlsafe(12)
    assert log_in(pages.box, Person(NAME, password), new_password=lasting).location, "the password is the one shown"
    # Changed, and changed back.
    do(pages, "edit")
    browser.run("document.querySelector('dialog[open] [name=firstName]').value = 'Augusta'")
    confirm(pages)
    assert "was changed" in ended(pages) and found(admin, NAME)["firstName"] == "Augusta"
    press(pages, "Undo", "dialog")
    browser.until_there("dialog[open] [type=submit]")
    pages.check_dialog("users.js: ${user.name} as before")
    confirm(pages)
    ended(pages)
    assert found(admin, NAME)["firstName"] == "Ada"
    close(pages)
    do(pages, "groups")
    browser.until_there("dialog[open] [name='group:/technicians']")
    browser.click("dialog[open] [name='group:/technicians']")
    confirm(pages)
    assert "added to technicians" in ended(pages) and groups(admin, NAME) == {"client", "technicians"}
    press(pages, "Undo", "dialog")
    browser.until_there("dialog[open] [type=submit]")
    pages.check_dialog("users.js: Groups of ${user.name} as before")
    confirm(pages)
    ended(pages)
    assert groups(admin, NAME) == {"client"}
    close(pages)
    # The session that began with the login ends.
    browser.get(browser.url)
    shows(pages, "from ")
    do(pages, "logout")
    assert "1 session ends" in confirm(pages)
    assert "have ended" in ended(pages)
    assert admin("GET", f"/{REALM}/users/{found(admin, NAME)['id']}/sessions").json() == []
    close(pages)
    do(pages, "disable")
    confirm(pages)
    ended(pages)
    assert found(admin, NAME)["enabled"] is False
    press(pages, "Undo", "dialog")
    confirm(pages)
    ended(pages)
    assert found(admin, NAME)["enabled"] is True
    close(pages)
    do(pages, "password")
    confirm(pages)
    ended(pages)
    browser.until_there("[data-secret]")
    assert browser.text("[data-secret]") not in (password, lasting)
    close(pages)
    # A password that comes once its dialog was closed has a dialog of its own.
    do(pages, "password")
    browser.until_there("dialog[open] [type=submit]")
    with pages.network(latency=500):
        browser.run("const d = document.querySelector('dialog'); d.querySelector('[type=submit]').click(); d.close()")
        browser.until_there("dialog[open] [data-secret]")
    pages.check_dialog("users.js: Password")
    close(pages)
    do(pages, "delete")
    assert "stays there" in confirm(pages)
    assert f"{NAME} was deleted" in ended(pages) and not found(admin, NAME)
    close(pages)
    browser.until(lambda driver: "user=" not in driver.current_url)
    assert pages.console_messages() == []


def test_who_is_locked_is_unlocked(pages: Dashboard, admin: Admin) -> None:
    name = f"locked-{MARK}"
    made(admin, name, credentials=[{"type": "password", "value": "right", "temporary": False}], lastName="L")
    pages.open(f"users?user={found(admin, name)['id']}")
    for _ in range(31):
        log_in(pages.box, Person(name, "wrong"))
        brute = admin("GET", f"/{REALM}/attack-detection/brute-force/users/{found(admin, name)['id']}").json()
        if brute["disabled"]:
            break
    pages.browser.get(pages.browser.url)
    shows(pages, "locked after")
    do(pages, "unlock")
    confirm(pages)
    assert "is not locked" in ended(pages)
    brute = admin("GET", f"/{REALM}/attack-detection/brute-force/users/{found(admin, name)['id']}").json()
    assert brute["disabled"] is False
    close(pages)


def test_search_filters_selection_and_pages(pages: Dashboard, admin: Admin) -> None:
    browser = pages.browser
    rows = [f"many{n:02}-{MARK},many{n:02}-{MARK}@example.org,Grace,Hopper,{str(n != 7).lower()}" for n in range(53)]
    head = "username,email,firstName,lastName,enabled"
    pages.box.helmctl("users", "import", "-", stdin="\n".join([head, *rows]))
    pages.open("users")
    browser.type("[name=q]", f"many {MARK}")
    browser.until(lambda driver: "1 \N{EN DASH} 50 of 53" in driver.find_element(By.CSS_SELECTOR, ".helm-pager").text)
    assert "q=many" in browser.url
    clean(pages, "users")
    browser.click("[rel=next]")
    browser.until(lambda driver: "51 \N{EN DASH} 53 of 53" in driver.find_element(By.CSS_SELECTOR, ".helm-pager").text)
    browser.until_there("[data-theme-switch]:not([hidden])")
    choose(pages, "enabled", "false")
    browser.until(lambda driver: len(driver.find_elements(By.CSS_SELECTOR, "[data-user][data-row]")) == 1)
    pages.open(f"users?q=many0+{MARK}")
    browser.click("[data-select-all]")
    assert browser.text("[data-table-count]") == "10 selected"
    # Without an answer nobody else is tried, and the same is sent again; one who is gone is named.
    press(pages, "Disable")
    browser.until_there("dialog[open] [type=submit]")
    pages.check_dialog("users.js: ${label} ${count}")
    with pages.network(offline=True):
        assert f"many05-{MARK}" in confirm(pages)
        assert "0 of 10 disabled, the others were not tried" in ended(pages)
    assert "systemctl --user status helmd" in browser.text("dialog[open]")
    assert focused(pages, "dialog[open] [type=submit]")
    assert found(admin, f"many03-{MARK}")["enabled"] is True
    assert admin("DELETE", f"/{REALM}/users/{found(admin, f'many09-{MARK}')['id']}").code == 204
    browser.click("dialog[open] [type=submit]")
    refused = "9 of 10 disabled; 1 was refused"
    browser.until(lambda driver: refused in driver.find_element(By.CSS_SELECTOR, "dialog[open]").text, 60)
    assert f"many09-{MARK}: " in browser.text("dialog[open] .helm-output")
    assert found(admin, f"many03-{MARK}")["enabled"] is False
    close(pages)
    assert focused(pages, "[data-bulk-do=disable]")
    browser.until(lambda driver: driver.find_element(By.CSS_SELECTOR, ".helm-users").text.count("disabled") >= 9)
    pages.console_messages()
    browser.until(lambda driver: "9 selected" in driver.find_element(By.CSS_SELECTOR, "[data-table-count]").text)
    press(pages, "Enable")
    confirm(pages)
    assert "9 of 9 enabled" in ended(pages)
    assert found(admin, f"many03-{MARK}")["enabled"] is True
    close(pages)
    assert pages.console_messages() == []


def csv_file(directory: Path, content: str) -> Path:
    """A file that the browser may read."""
    file = directory / "people.csv"
    file.write_text(content)
    directory.chmod(0o755)
    for parent in directory.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    return file


def choose_file(pages: Dashboard, file: Path) -> None:
    press(pages, "Import CSV")
    pages.browser.do(lambda: pages.browser.driver.find_element(By.CSS_SELECTOR, "[data-csv]").send_keys(str(file)))


def test_csv_in_with_a_report_and_out(pages: Dashboard, admin: Admin, tmp_path: Path) -> None:
    browser = pages.browser
    file = csv_file(
        tmp_path,
        "username,email,firstName,lastName,groups\n"
        f"csv1-{MARK},csv1-{MARK}@example.org,<b>One,X,client\n"
        f"csv2-{MARK},csv2-{MARK}@example.org,Two,X,client\n"
        f"csv3-{MARK},no-address,Three,X,client\n",
    )
    pages.open("users")
    # What the browser may not read, what is empty, and what has other columns.
    file.chmod(0)
    choose_file(pages, file)
    unread = "can't be read, so nothing was sent"
    browser.until(lambda driver: unread in driver.find_element(By.CSS_SELECTOR, "[data-toasts]").text)
    browser.click(".helm-toast--error [title=Close]")
    file.chmod(0o644)
    good = file.read_text()
    file.write_text("")
    choose_file(pages, file)
    empty = "is empty, so nothing was sent. It needs a row with the names of columns: username"
    browser.until(lambda driver: empty in driver.find_element(By.CSS_SELECTOR, "[data-toasts]").text)
    browser.click(".helm-toast--error [title=Close]")
    file.write_text("name;mail\na;b\n")
    choose_file(pages, file)
    confirm(pages)
    browser.until_there("dialog[open] .helm-ending--error")
    assert "a column 'name'" in ended(pages) and "Known are: username" in browser.text("dialog[open]")
    close(pages)
    file.write_text(good)
    choose_file(pages, file)
    browser.until_there("dialog[open] [type=submit]")
    pages.check_dialog("users.js: Check ${name}")
    confirm(pages)
    ended(pages)
    report = browser.text("dialog[open]")
    assert "1 would be created" in report and f"row 4 (csv3-{MARK}): email: must be an email address" in report
    assert f"row 2 (csv1-{MARK}): firstName" in report and not found(admin, f"csv2-{MARK}")
    pages.check_dialog("users.js: Check ${name}")
    close(pages)
    assert focused(pages, "[data-user-import]")
    file.write_text(file.read_text().replace("no-address", f"csv3-{MARK}@example.org").replace("<b>", ""))
    choose_file(pages, file)
    confirm(pages)
    assert "can be imported" in ended(pages)
    press(pages, "Import them", "dialog")
    browser.until_there("dialog[open] [type=submit]")
    pages.check_dialog("users.js: Import ${name}")
    confirm(pages)
    assert "was imported" in ended(pages)
    assert {found(admin, f"csv{n}-{MARK}")["email"] for n in (1, 2, 3)}
    close(pages)
    out = browser.run("return fetch(document.querySelector('[download]').href).then((answer) => answer.text())")
    assert f"csv3-{MARK},csv3-{MARK}@example.org" in out


def test_protections_are_explained_where_they_bite(pages: Dashboard, admin: Admin) -> None:
    browser = pages.browser
    # Who is there already is refused.
    made(admin, f"there-{MARK}")
    pages.open("users")
    press(pages, "New user")
    browser.until_there("dialog[open] [name=username]")
    browser.type("dialog[open] [name=username]", f"there-{MARK}")
    browser.type("dialog[open] [name=email]", f"there-{MARK}@example.org")
    browser.click("dialog[open] [type=submit]")
    browser.until_there("dialog[open] .helm-refusal")
    assert "exists" in browser.text("dialog[open] .helm-refusal")
    # What was written stays, and is sent again with another name.
    assert focused(pages, "dialog[open] :is(input, button)")
    browser.type("dialog[open] [name=username]", "-2")
    browser.run("document.querySelector('dialog[open] [name=email]').value = arguments[0]", f"two-{MARK}@example.org")
    browser.click("dialog[open] [type=submit]")
    browser.until_there("dialog[open] [data-secret]")
    assert found(admin, f"there-{MARK}-2")["email"] == f"two-{MARK}@example.org"
    close(pages)
    browser.until_there(".helm-user [data-user-do=edit]")
    # The last admin.
    admins = admin("GET", f"/{REALM}/groups?search=admins&exact=true").json()[0]["id"]
    members = admin("GET", f"/{REALM}/groups/{admins}/members").json()
    enabled = [each for each in members if each["enabled"]]
    if len(enabled) == 1:
        pages.open(f"users?user={enabled[0]['id']}")
        do(pages, "disable")
        browser.click("dialog[open] [type=submit]")
        browser.until_there("dialog[open] .helm-refusal")
        assert "last enabled member" in browser.text("dialog[open]")
        pages.press("Escape")
    assert pages.console_messages(), "the browser itself says that requests were refused"


def test_behind_the_gateway_admins_lead_to_helm_itself(pages: Dashboard, admin: Admin) -> None:
    me = pages.person("admin").name
    pages.open_behind_gateway(f"users?user={found(admin, me)['id']}")
    assert "has the rights of an admin" in pages.browser.text(".helm-user")
    link = pages.browser.run("return document.querySelector('[data-fresh-login]').href")
    assert link.startswith("http://localhost:5004/helm/users?user=")
    bill = f"bill-{MARK}"
    pages.browser.get(f"https://localhost:8443/helm/users?user={made(admin, bill)}")
    do(pages, "disable")
    confirm(pages)
    ended(pages)
    assert found(admin, bill)["enabled"] is False
    pages.console_messages()


def test_while_keycloak_is_away_the_page_says_what_to_do(pages: Dashboard, demo: Sandbox, tmp_path: Path) -> None:
    browser, name = pages.browser, f"late-{MARK}"
    driver = browser.driver
    first = browser.do(lambda: driver.current_window_handle)

    def tab() -> str:
        browser.do(lambda: driver.switch_to.new_window("tab"))
        return str(browser.do(lambda: driver.current_window_handle))

    def to(handle: str) -> None:
        browser.do(lambda: driver.switch_to.window(handle))

    pages.open("users")
    choose_file(pages, csv_file(tmp_path, f"username,email\n{name}-2,{name}-2@example.org\n"))
    browser.until_there("dialog[open] [type=submit]")
    second = tab()
    pages.open("users")
    press(pages, "New user")
    browser.until_there("dialog[open] [name=username]")
    browser.type("dialog[open] [name=username]", name)
    browser.type("dialog[open] [name=email]", f"{name}@example.org")
    demo("systemctl", "--user", "kill", "--signal=STOP", "hivematrix-keycloak")
    try:
        # Each is waited for while the others are, for as long as Keycloak may take to answer.
        browser.click("dialog[open] [type=submit]")
        to(first)
        browser.click("dialog[open] [type=submit]")
        third = tab()
        browser.get(f"{HELM}users")
        assert "Users are kept by Keycloak" in browser.text("[role=alert]")
        said = browser.text("main")
        assert "helmctl logs keycloak" in said and "helmctl start keycloak" not in said, "it runs, and hangs"
        assert pages.violations() == []
        to(second)
        browser.until_there("dialog[open] .helm-refusal", 60)
        said = browser.text("dialog[open] .helm-refusal")
        assert "Keycloak did not answer" in said and "helmctl logs keycloak" in said
        # What was written stays, and can be sent again.
        assert browser.run("return document.querySelector('dialog [name=username]').value") == name
        assert focused(pages, "dialog[open] [type=submit]:not([disabled])")
        to(first)
        browser.until_there("dialog[open] .helm-ending--error", 60)
        assert "Keycloak did not answer" in browser.text("dialog[open] .helm-ending")
    finally:
        demo("systemctl", "--user", "kill", "--signal=CONT", "hivematrix-keycloak")
    until(lambda: demo.status("keycloak")["keycloak"]["state"] == "healthy", within=60)
    # The file need not be chosen again.
    press(pages, "Try again", "dialog")
    confirm(pages)
    assert "All rows can be imported" in ended(pages)
    close(pages)
    for handle in (second, third):
        to(handle)
        browser.do(driver.close)
    to(first)
    pages.console_messages()


def test_other_roles_have_no_users(pages: Dashboard) -> None:
    pages.open("", "technician")
    assert "Users" not in pages.browser.texts(".helm-rail__item")
    pages.browser.get("http://localhost:5004/helm/users")
    assert "equires role" in pages.browser.text("main")
    pages.console_messages()
