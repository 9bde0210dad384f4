"""Users as CSV (RFC 4180): hostile files are read row by row, and what is written is safe in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from helmd.model.counted import counted
from helmd.model.errors import HelmError, UsageError
from helmd.model.identity.users import NewUser, RealmUser, checked_user, fault_of
from helmd.model.printable import printable

MOST_CSV_BYTES = 4 << 20
"""Of a file that is imported."""
MOST_ROWS = 10_000
LONGEST_CELL = 1000
USER_COLUMNS = ("username", "email", "firstName", "lastName", "enabled", "groups")
"""Those of an export; an import needs the first two, and may have a password."""
PASSWORD = "password"
_KNOWN = {name.casefold(): name for name in (*USER_COLUMNS, PASSWORD)} | {
    "first_name": "firstName",
    "first name": "firstName",
    "last_name": "lastName",
    "last name": "lastName",
}
_DELIMITERS = ",;\t"
_YES, _NO = ("true", "yes", "1", ""), ("false", "no", "0")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula (OWASP, CSV injection)."""
_ESCAPED = re.compile(r"'[=+\-@\t\r]")
_BETWEEN_GROUPS = re.compile(r"[;|]")

RowOutcome = Literal["created", "unchanged", "would_create", "failed"]


@dataclass(frozen=True, slots=True)
class UserRow:
    """A row that can be imported. ``number`` is its line in the file, from 1."""

    number: int
    user: NewUser
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RowReport:
    """The result of a row, with the reason if it was not imported."""

    row: int
    username: str
    outcome: RowOutcome
    reason: str = ""

    def __str__(self) -> str:
        name = f" ({printable(self.username, 60)})" if self.username else ""
        return f"row {self.row}{name}: {self.reason or self.outcome}"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The results of all rows, in the order of the file."""

    rows: tuple[RowReport, ...]
    dry_run: bool = False

    def count(self, outcome: RowOutcome) -> int:
        return sum(row.outcome == outcome for row in self.rows)

    @property
    def failed(self) -> tuple[RowReport, ...]:
        return tuple(row for row in self.rows if row.outcome == "failed")

    def __str__(self) -> str:
        made = "would be created" if self.dry_run else "created"
        done = self.count("would_create") if self.dry_run else self.count("created")
        return (
            f"{counted(len(self.rows), 'row')}: {done:,} {made}, {self.count('unchanged'):,} there already, "
            f"{len(self.failed):,} faulty"
        )


class FaultyRowsError(HelmError):
    """Some rows were not imported; all others were. ``lines`` has the first SHOWN of them."""

    code: ClassVar[str] = "faulty_rows"

    def __init__(self, report: ImportReport, shown: int) -> None:
        super().__init__(
            str(report),
            hint="Correct these rows and import the file again: users who are there are not made twice.",
            lines=[str(row) for row in report.failed[:shown]],
        )


def text_of_csv(content: bytes, encoding: str = "") -> str:
    """Return the text of a file: UTF-8, or as its byte order mark or ENCODING says. Raises UsageError."""
    if len(content) > MOST_CSV_BYTES:
        raise UsageError(f"the file is larger than {MOST_CSV_BYTES >> 20} MiB", hint="Split it.")
    named = encoding or ("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    try:
        return content.decode(named).removeprefix("\ufeff")
    except LookupError:
        raise UsageError(f"there is no encoding '{printable(encoding, 40)}'") from None
    except UnicodeError:
        raise UsageError(
            f"the file is not {named.removesuffix('-sig').upper()}",
            hint="Save it as CSV UTF-8, or give its encoding: --encoding cp1252",
        ) from None


def read_user_rows(text: str) -> Iterator[UserRow | RowReport]:
    """Yield the rows of a table: what can be imported, and a report about each that can't.

    Raises UsageError for the head.
    """
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=_delimiter(text), strict=True)
    head = _head(reader)
    seen: dict[str, int] = {}
    number = 0
    while True:
        before = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            number += 1
            yield RowReport(before, "", "failed", f"it is not valid CSV: {problem}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        if number > MOST_ROWS:
            yield RowReport(
                before, "", "failed", f"there are more than {MOST_ROWS:,} rows; this and later ones are left"
            )
            return
        yield _row(before, head, cells, seen)


def _delimiter(text: str) -> str:
    first = text.lstrip("\r\n").partition("\n")[0]
    return max(_DELIMITERS, key=first.count)


def _head(reader: Iterator[Sequence[str]]) -> list[str]:
    try:
        cells = next((row for row in reader if any(cell.strip() for cell in row)), [])
    except csv.Error as problem:
        raise UsageError(f"the first row is not valid CSV: {problem}") from None
    named = [_KNOWN.get(cell.strip().casefold(), "") for cell in cells]
    unknown = [printable(cell.strip(), 40) for cell, name in zip(cells, named, strict=True) if not name]
    if unknown:
        raise UsageError(
            f"the first row has a column '{unknown[0]}'", hint=f"Known are: {', '.join((*USER_COLUMNS, PASSWORD))}"
        )
    if len(set(named)) < len(named):
        raise UsageError("the first row has a column twice")
    if missing := [name for name in USER_COLUMNS[:2] if name not in named]:
        raise UsageError(f"the first row has no column '{missing[0]}'", hint="It names the columns: username,email,…")
    return named


def _row(number: int, head: Sequence[str], cells: Sequence[str], seen: dict[str, int]) -> UserRow | RowReport:
    # Names, not values, are in the sentences: a cell may be a password.
    given = {name: cell if name == PASSWORD else _unescaped(cell) for name, cell in zip(head, cells, strict=False)}
    username = given.get("username", "").strip()
    fault = _fault(given, head, cells)
    if fault is None:
        for name in ("username", "email"):
            key = f"{name} {given[name].strip().casefold()}"
            if (earlier := seen.setdefault(key, number)) != number and fault is None:
                fault = f"{name}: row {earlier} has the same"
    if fault is not None:
        return RowReport(number, username[:LONGEST_CELL], "failed", fault)
    user = NewUser(
        username,
        given["email"].strip(),
        given.get("firstName", "").strip(),
        given.get("lastName", "").strip(),
        given.get("enabled", "").strip().casefold() in _YES,
        groups=_groups(given.get("groups", "")),
    )
    return UserRow(number, checked_user(user), given.get(PASSWORD, ""))


def _fault(given: Mapping[str, str], head: Sequence[str], cells: Sequence[str]) -> str | None:
    if len(cells) != len(head):
        return f"it has {counted(len(cells), 'column')}, and the first row {len(head)}"
    for name, value in given.items():
        if len(value) > LONGEST_CELL:
            return f"{name}: is longer than {LONGEST_CELL:,} characters"
        if name != PASSWORD and "\0" in value:
            return f"{name}: has a NUL"
    for name in ("username", "email", "firstName", "lastName"):
        if name in given and (fault := fault_of(name, given[name].strip())):
            return f"{name}: {fault}"
    if given.get("enabled", "").strip().casefold() not in (*_YES, *_NO):
        return "enabled: must be true or false"
    return None


def _groups(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in _BETWEEN_GROUPS.split(cell) if (name := each.strip())))


def _unescaped(cell: str) -> str:
    return cell[1:] if _ESCAPED.match(cell) else cell


def csv_cell(text: str) -> str:
    """Return TEXT as a cell that no spreadsheet takes for a formula; an import takes the apostrophe off again."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Return ROWS as lines of CSV."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows([csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def user_cells(user: RealmUser, groups: Iterable[str]) -> tuple[str, ...]:
    """Return the cells of USER below USER_COLUMNS."""
    enabled = "true" if user.enabled else "false"
    return (user.username, user.email, user.first_name, user.last_name, enabled, "|".join(groups))
