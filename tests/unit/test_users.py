"""Users: what is protected, what a field may be, and CSV of any content. System tests have Keycloak itself."""

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.errors import DeniedError, UsageError
from helmd.model.identity.user_table import (
    LONGEST_CELL,
    MOST_CSV_BYTES,
    MOST_ROWS,
    USER_COLUMNS,
    FaultyRowsError,
    ImportReport,
    RowReport,
    UserRow,
    csv_text,
    read_user_rows,
    text_of_csv,
    user_cells,
)
from helmd.model.identity.users import (
    NewUser,
    RealmGroup,
    RealmUser,
    Standing,
    UserChange,
    check_change,
    checked_user,
    group_named,
    group_of,
    infix_search,
    refusal_of_change,
    time_of_milliseconds,
    user_of,
)

ADMINS = RealmGroup("1", "admins", "/admins")
DEPUTIES = RealmGroup("2", "deputies", "/admins/deputies")
NAMED_ALIKE = RealmGroup("3", "Admins", "/client/Admins")
CLIENT = RealmGroup("4", "client", "/client", 1)
ADA = RealmUser("a", "ada", "ada@example.org")
LAST = Standing((ADMINS, CLIENT), other_admins=False)


def test_who_has_the_rights_of_an_admin() -> None:
    """Tokens name groups without their paths, and roles of a group are those of groups in it as well."""
    for group, expected in ((ADMINS, True), (DEPUTIES, True), (NAMED_ALIKE, True), (CLIENT, False)):
        assert group.gives_admin is expected
        assert Standing((CLIENT, group)).privileged is expected
    assert Standing((CLIENT,), manages=True).privileged
    assert Standing((ADMINS,)).counted and not Standing((DEPUTIES, NAMED_ALIKE)).counted


@pytest.mark.parametrize("change", ["delete", "disable", "groups"])
def test_the_last_enabled_admin_stays_one(change: UserChange) -> None:
    removed = (ADMINS,) if change == "groups" else ()
    with pytest.raises(DeniedError, match="ada is the last enabled member of group admins") as refused:
        check_change(ADA, LAST, change, removed)
    assert "helmctl users groups NAME --add admins" in refused.value.hint
    assert refusal_of_change(ADA, replace(LAST, other_admins=True), change, removed) is None
    assert refusal_of_change(replace(ADA, enabled=False), LAST, change, removed) is None, (
        "another one is missing anyway"
    )
    assert refusal_of_change(ADA, Standing((CLIENT,), other_admins=False), change) is None


def test_what_the_last_admin_may_have_done() -> None:
    changes: list[UserChange] = ["edit", "enable", "password", "unlock", "logout", "groups"]
    assert [refusal_of_change(ADA, LAST, change, (CLIENT,)) for change in changes] == [None] * 6


def test_users_from_a_directory_are_not_deleted() -> None:
    """Keycloak would remove its copy alone, with groups and the disabling, and make another one at the next search."""
    lena = user_of({"id": "7", "username": "lena", "enabled": True, "federationLink": "component"})
    with pytest.raises(DeniedError, match="lena is from a directory") as refused:
        check_change(lena, Standing(()), "delete")
    assert refused.value.hint.endswith("helmctl users disable lena")
    assert refusal_of_change(lena, Standing(()), "disable") is None
    assert user_of({"id": "8", "username": "max", "enabled": True, "origin": "component"}).from_directory
    assert not user_of({"id": "9", "username": "ann", "enabled": True}).from_directory


def test_the_first_account_and_service_accounts_stay() -> None:
    admin, machine = replace(ADA, username="Admin"), replace(ADA, service_account_of="helm-admin")
    assert refusal_of_change(admin, Standing((ADMINS,)), "delete") == "the account admin can't be deleted"
    assert refusal_of_change(admin, Standing((ADMINS,)), "disable") is None
    every: list[UserChange] = ["edit", "enable", "disable", "delete", "groups", "password", "unlock", "logout"]
    for change in every:
        with pytest.raises(DeniedError, match="is the service account of client helm-admin"):
            check_change(machine, Standing(()), change)


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (NewUser("ab", "a@example.org"), "username: must have 3 to 255"),
        (NewUser("a b c", "a@example.org"), "username: "),
        (NewUser("ada\n", "a@example.org"), "username: "),
        (NewUser("x" * 256, "a@example.org"), "username: "),
        (NewUser("=cmd()", "a@example.org"), "username: "),
        (NewUser("Service-account-helm-admin", "a@example.org"), "username: service-account-… is for service accounts"),
        (NewUser("ada", ""), "email: is missing"),
        (NewUser("ada", "example.org"), "email: must be an email address"),
        (NewUser("ada", "a@b\n"), "email: "),
        (NewUser("ada", "a@example.org", first_name="<b>"), "firstName: has characters"),
        (NewUser("ada", "a@example.org", last_name="x" * 256), "lastName: "),
    ],
)
def test_fields_that_keycloak_would_refuse(user: NewUser, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        checked_user(user)
    assert refused.value.sentence.startswith(said)


def test_fields_as_keycloak_keeps_them() -> None:
    made = checked_user(NewUser("Ada.L", "Ada@Example.org", "Zoë", "O'Neil-Ng 李"))
    assert (made.username, made.email, made.first_name, made.last_name) == (
        "ada.l",
        "ada@example.org",
        "Zoë",
        "O'Neil-Ng 李",
    )


def test_a_search_is_for_words_anywhere() -> None:
    assert infix_search('  ada "love ') == '*ada* *"love*'
    assert infix_search("id:4fec") == "*id:4fec*", "not Keycloak's search for an id"
    for text in ("a b c d e f", "x" * 201):
        with pytest.raises(UsageError, match="at most 5 words and 200 characters"):
            infix_search(text)


def test_groups_by_name_or_path() -> None:
    twice = RealmGroup("5", "night", "/client/night"), RealmGroup("6", "night", "/technicians/night")
    present = (ADMINS, DEPUTIES, CLIENT, *twice, RealmGroup("7", "admins", "/client/admins"))
    assert group_named("admins", present) is ADMINS, "the one at the top"
    assert group_named("deputies", present) is DEPUTIES
    assert group_named("/technicians/night", present) is twice[1]
    with pytest.raises(UsageError, match="there are several groups 'night'"):
        group_named("night", present)
    for name in ("nosuch", "/nosuch", "", "/"):
        with pytest.raises(UsageError, match="there is no group"):
            group_named(name, present)


def test_answers_of_keycloak() -> None:
    assert user_of({}) == RealmUser("", "", enabled=False)
    assert (
        user_of({"id": "a", "username": "ada", "email": None, "enabled": True, "createdTimestamp": "x"}).created is None
    )
    assert user_of({"id": "a", "username": "service-account-helm-admin"}).service_account_of == "helm-admin"
    assert group_of({"id": "1", "name": "a", "subGroupCount": 2}) == RealmGroup("1", "a", "/a", 2)
    for wrong in (None, True, "1", -1, 0, 10**18, 1.5):
        assert time_of_milliseconds(wrong) is None
    found = time_of_milliseconds(1795411858268)
    assert found is not None and found.isoformat() == "2026-11-23T05:30:58.268000+00:00"


HEAD = "username,email,firstName,lastName,enabled,groups,password\n"


def read(text: str) -> tuple[list[UserRow], list[RowReport]]:
    rows = list(read_user_rows(text))
    return [row for row in rows if isinstance(row, UserRow)], [row for row in rows if isinstance(row, RowReport)]


def test_a_table() -> None:
    rows, faulty = read(
        HEAD + 'Ada,ada@example.org,Ada,"Love, lace",yes,client|/technicians/night;client,pw =1\n\n'
        "bob,bob@example.org,,,no,,\n"
    )
    assert faulty == []
    assert rows[0] == UserRow(
        2,
        NewUser("ada", "ada@example.org", "Ada", "Love, lace", groups=("client", "/technicians/night")),
        "pw =1",
    )
    assert rows[1].number == 4 and not rows[1].user.enabled and "pw =1" not in repr(rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_spreadsheets_write_it_in_their_ways(delimiter: str, ending: str) -> None:
    text = ending.join([delimiter.join(["EMAIL", "First Name", "username"]), delimiter.join(["a@b.c", "A", "ada"])])
    rows, faulty = read(text)
    assert ([row.user for row in rows], faulty) == ([NewUser("ada", "a@b.c", "A")], [])


def test_encodings() -> None:
    text = "username,email,lastName\nada,a@b.c,Müller\n"
    for encoded in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        assert text_of_csv(encoded) == text
    assert text_of_csv(text.encode("cp1252"), "cp1252") == text
    for content, encoding, said in (
        (text.encode("cp1252"), "", "the file is not UTF-8"),
        (b"\xff\xfea", "", "the file is not UTF-16"),
        (b"x", "nosuch", "there is no encoding 'nosuch'"),
        (b"x" * (MOST_CSV_BYTES + 1), "", "larger than 4 MiB"),
    ):
        with pytest.raises(UsageError, match=said):
            text_of_csv(content, encoding)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("ab,a@b.c,,,,,", "username: must have 3"),
        (",a@b.c,,,,,", "username: must have 3"),
        ("abc,,,,,,", "email: is missing"),
        ("abc,nowhere,,,,,", "email: must be"),
        ("abc,a@b.c,<script>,,,,", "firstName: has characters"),
        ("abc,a@b.c,,,perhaps,,", "enabled: must be true or false"),
        ("abc,a@b.c", "it has 2 columns, and the first row 7"),
        ("abc,a@b.c,,,,,,,", "it has 9 columns"),
        ("abc,a@b.c," + "x" * (LONGEST_CELL + 1) + ",,,,", "firstName: is longer than 1,000"),
        ("abc,a@b.c," + "x" * 200_000 + ",,,,", "it is not valid CSV: field larger than"),
        ('abc,"a"b,,,,,', "it is not valid CSV"),
        ("abc,a@b.c,a\0b,,,,", "firstName: "),
        ("=HYPERLINK(1),a@b.c,,,,,", "username: "),
        ("first,other@b.c,,,,,", "username: row 2 has the same"),
        ("other,FIRST@b.c,,,,,", "email: row 2 has the same"),
    ],
)
def test_a_faulty_row_costs_itself_alone(row: str, reason: str) -> None:
    rows, faulty = read(f"{HEAD}first,first@b.c,,,,,secret\n{row}\nlast,last@b.c,,,,,\n")
    assert [each.user.username for each in rows] == ["first", "last"]
    (report,) = faulty
    assert report.row == 3 and report.reason.startswith(reason) and "secret" not in str(report)


def test_an_open_quotation_mark_takes_the_rest() -> None:
    rows, faulty = read(HEAD + 'first,first@b.c,,,,,\n"abc,a@b.c,,,,,\nlast,last@b.c,,,,,\n')
    assert [each.user.username for each in rows] == ["first"]
    assert [(each.row, each.reason) for each in faulty] == [(3, "it is not valid CSV: unexpected end of data")]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("", "no column 'username'"),
        ("username\n", "no column 'email'"),
        ("username,email,shoe size\n", "a column 'shoe size'"),
        ("username,email,EMAIL\n", "a column twice"),
        ("username,email,\x1b[2J\n", r"a column '\\x1b\[2J'"),
        ('"username\n', "the first row is not valid CSV"),
    ],
)
def test_a_head_that_is_none(head: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(head)


def test_there_may_be_so_many_rows() -> None:
    lines = (f"user{n},user{n}@b.c" for n in range(MOST_ROWS + 2))
    rows, faulty = read("username,email\n" + "\n".join(lines))
    assert len(rows) == MOST_ROWS and [each.row for each in faulty] == [MOST_ROWS + 2]


@given(st.text() | st.text(alphabet="ab,;\"\n\r\t\0='é@"))
def test_whatever_is_in_a_file_is_a_row_or_a_report(text: str) -> None:
    try:
        rows = list(read_user_rows(f"username,email,groups\n{text}"))
    except UsageError:
        return
    assert all(isinstance(row, UserRow | RowReport) for row in rows)


NAMES = st.text(st.characters(blacklist_categories=("C",)), max_size=20).map(str.strip)


@given(NAMES, NAMES, st.booleans(), st.sampled_from(["", "client", "-night", "@home"]))
def test_an_export_is_no_formula_and_comes_back_as_it_was(first: str, last: str, enabled: bool, group: str) -> None:
    user = RealmUser("a", "-ada", "+ada@example.org", first, last, enabled)
    text = csv_text([USER_COLUMNS, user_cells(user, [group] if group else [])])
    ((_, *cells),) = [[None, *row] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    assert not any(str(cell).startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    rows, faulty = read(text)
    for row in rows:
        assert (row.user.first_name, row.user.last_name) == (first, last)
        assert (row.user.username, row.user.email, row.user.enabled) == ("-ada", "+ada@example.org", enabled)
        assert row.user.groups == ((group,) if group else ())
    assert all("firstName" in each.reason or "lastName" in each.reason for each in faulty)


def test_a_report() -> None:
    rows = (
        RowReport(2, "ada", "created"),
        RowReport(3, "b\x1b", "failed", "email: is missing"),
        RowReport(4, "c", "unchanged"),
    )
    report = ImportReport(rows)
    error = FaultyRowsError(report, 7)
    assert error.sentence == "3 rows: 1 created, 1 there already, 1 faulty"
    assert error.lines == (r"row 3 (b\x1b): email: is missing",)
    assert (
        str(ImportReport((RowReport(2, "ada", "would_create"),), True))
        == "1 row: 1 would be created, 0 there already, 0 faulty"
    )
