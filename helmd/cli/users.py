"""``helmctl users``: the users of the suite in Keycloak. Works without helmd."""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from helmd.cli import output
from helmd.cli.arguments import CommandGroup
from helmd.cli.context import Context
from helmd.cli.user_access import JSON_OPTION, REASON_OPTION, print_user, realm_users, recorded_change, user_json
from helmd.cli.users_csv import users_export_command, users_import_command
from helmd.model.api.json_codec import to_json
from helmd.model.counted import counted
from helmd.model.errors import UsageError
from helmd.model.identity.users import DEFAULT_USERS, MOST_USERS

if TYPE_CHECKING:
    from helmd.model.identity.users import RealmUser
    from helmd.operations.identity.users import Users

_USER = click.argument("user", metavar="USER")


@click.group("users", cls=CommandGroup, short_help="Manage the users of the suite in Keycloak.")
def users_command() -> None:
    """Manage the users of the suite, which Keycloak keeps.

    USER is a username, an email address or an id. The last enabled member of the group admins can't be deleted,
    disabled or taken out of it, and the account admin can't be deleted. helmd need not run.
    """


@users_command.command("list", short_help="List users: all, or those that match.")
@click.argument("search", nargs=-1)
@click.option("--group", metavar="GROUP", default="", help="Only members of this group.")
@click.option("--disabled", is_flag=True, help="Only users who may not log in.")
@click.option("--first", type=click.IntRange(0), default=0, help="How many to leave out.")
@click.option("-n", "--max", "most", type=click.IntRange(1, MOST_USERS), default=DEFAULT_USERS, show_default=True,
              help="How many at most.")  # fmt: skip
@JSON_OPTION
@click.pass_obj
def users_list_command(
    context: Context, search: tuple[str, ...], group: str, disabled: bool, first: int, most: int, as_json: bool
) -> None:
    """List users by username: all, or those with all words of SEARCH anywhere in names or email."""
    page = realm_users(context).page(" ".join(search), first, most, False if disabled else None, group)
    if as_json:
        output.print_json([user_json(user) for user in page.users])
    else:
        rows = [
            (user.username, _name(user), user.email, "enabled" if user.enabled else "disabled", user.id)
            for user in page.users
        ]
        for line in output.table(("USERNAME", "NAME", "EMAIL", "LOGIN", "ID"), rows):
            output.print_line(*line)
    if page.total is not None and page.more:
        output.print_message(f"{len(page.users):,} of {page.total:,}. For more: --first {first + most}")


@users_command.command("show", short_help="Show a user: groups, locks, sessions, last login.")
@_USER
@JSON_OPTION
@click.pass_obj
def users_show_command(context: Context, user: str, as_json: bool) -> None:
    """Show a user: groups, whether it may log in, is locked, has sessions, and when it last logged in.

    That is known from Keycloak's events, which are kept for 30 days, and from sessions.
    """
    users = realm_users(context)
    found = users.details(users.find(user).id)
    if as_json:
        output.print_json(
            {
                **user_json(found.user),
                "groups": [group.path for group in found.groups],
                "admin": found.privileged,
                "locked": found.locked,
                "failed_logins": found.failed_logins,
                "sessions": found.sessions,
                "required_actions": list(found.user.required_actions),
                "last_login_at": found.last_login.isoformat() if found.last_login else None,
                "logins_since": found.logins_since.isoformat() if found.logins_since else None,
            }
        )
        return
    since = f"not since {_shown(found.logins_since)}" if found.logins_since else "not known"
    facts = (
        ("username", found.user.username),
        ("name", _name(found.user)),
        ("email", found.user.email + (" (verified)" if found.user.email_verified else "")),
        ("login", "enabled" if found.user.enabled else "disabled"),
        ("locked", f"yes, after {counted(found.failed_logins, 'failed login')}" if found.locked else "no"),
        ("groups", ", ".join(group.path.removeprefix("/") for group in found.groups) or "none"),
        ("admin", "yes" if found.privileged else "no"),
        ("sessions", str(found.sessions)),
        ("last login", _shown(found.last_login) if found.last_login else since),
        ("at next login", ", ".join(found.user.required_actions).lower().replace("_", " ") or "nothing"),
        ("id", found.user.id),
    )
    for name, value in facts:
        output.print_line(f"{name:<14} {value}")


@users_command.command("create", short_help="Make a user, with a temporary password.")
@click.argument("username")
@click.argument("email")
@click.option("--first-name", default="", help="First name.")
@click.option("--last-name", default="", help="Last name.")
@click.option("--group", "groups", metavar="GROUP", multiple=True, help="A group to be in; may be repeated.")
@click.option("--password", type=click.Choice(["generate", "stdin", "none"]), default="generate", show_default=True,
              help="Make one, which is printed once; read one from stdin; or set none.")  # fmt: skip
@click.option("--lasting", is_flag=True, help="A password from stdin need not be changed at the first login.")
@REASON_OPTION
@JSON_OPTION
@click.pass_obj
def users_create_command(
    context: Context, username: str, email: str, first_name: str, last_name: str, groups: tuple[str, ...],
    password: str, lasting: bool, reason: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a user, with a password that must be changed at the first login."""
    from helmd.model.identity.users import NewUser
    from helmd.operations.identity.keycloak import generate_password

    generated = generate_password() if password == "generate" else ""
    given = _password_from_stdin() if password == "stdin" else generated
    wanted = NewUser(username, email, first_name, last_name, groups=groups)
    detail = f"user {username}" + (f", groups {', '.join(groups)}" if groups else "")
    with recorded_change(context, "users create", reason, detail) as users:
        made = users.create(wanted, given, temporary=not lasting or bool(generated))
    print_user(made, f"Created {made.username}.", as_json, generated)


@users_command.command("edit")
@_USER
@click.option("--email", help="The email address; it is not verified then.")
@click.option("--first-name", help="First name.")
@click.option("--last-name", help="Last name.")
@click.option("--email-verified/--email-unverified", default=None, help="Whether the email address was verified.")
@REASON_OPTION
@JSON_OPTION
@click.pass_obj
def users_edit_command(
    context: Context, user: str, email: str | None, first_name: str | None, last_name: str | None,
    email_verified: bool | None, reason: str, as_json: bool,
) -> None:  # fmt: skip
    """Change fields of a user; the others stay. A username can't be changed."""
    given = {"email": email, "first_name": first_name, "last_name": last_name, "email_verified": email_verified}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise UsageError("nothing is to be changed", hint="See: helmctl users edit --help")
    with recorded_change(context, "users edit", reason, f"user {user}, {', '.join(changes)}") as users:
        changed = users.edit(users.find(user).id, **changes)
    print_user(changed, f"Changed {changed.username}.", as_json)


@users_command.command("delete")
@_USER
@REASON_OPTION
@JSON_OPTION
@click.pass_obj
def users_delete_command(context: Context, user: str, reason: str, as_json: bool) -> None:
    """Remove a user; its sessions end. To keep it, but from logging in: helmctl users disable."""
    with recorded_change(context, "users delete", reason, f"user {user}") as users:
        gone = users.delete(users.find(user).id)
    print_user(gone, f"Deleted {gone.username} ({gone.id}).", as_json)


@users_command.command("groups", short_help="Show groups, or change those of a user.")
@click.argument("user", metavar="[USER]", default="")
@click.option("--set", "only", metavar="GROUP,...", help='Be in these groups and no others; "" for none.')
@click.option("--add", metavar="GROUP", multiple=True, help="Add the user to this group; may be repeated.")
@click.option("--remove", metavar="GROUP", multiple=True, help="Take the user out of this group; may be repeated.")
@REASON_OPTION
@JSON_OPTION
@click.pass_obj
def users_groups_command(
    context: Context, user: str, only: str | None, add: tuple[str, ...], remove: tuple[str, ...], reason: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Show the groups of a user, or without USER all groups; or change those of a user.

    GROUP is a name, or a path for a group that is in another one: /technicians/night.
    """
    if not user and (only is not None or add or remove):
        raise UsageError("whose groups are to be changed?", hint="Run: helmctl users groups USER --add GROUP")
    if only is not None and (add or remove):
        raise UsageError("--set can't be combined with --add and --remove")
    if only is None and not add and not remove:
        users = realm_users(context)
        found = users.groups_of(users.find(user).id) if user else users.groups()
        if as_json:
            output.print_json([{"id": each.id, "name": each.name, "path": each.path} for each in found])
        else:
            for group in found:
                output.print_line(group.path.removeprefix("/") if group.path == f"/{group.name}" else group.path)
        return
    wanted = tuple(name for each in (only or "").split(",") if (name := each.strip()))
    what = f"set {', '.join(wanted) or 'none'}" if only is not None else " ".join(
        [*(f"+{name}" for name in add), *(f"-{name}" for name in remove)]
    )  # fmt: skip
    with recorded_change(context, "users groups", reason, f"user {user}, {what}") as users:
        id = users.find(user).id
        _, done = users.set_groups(id, wanted) if only is not None else users.change_groups(id, add, remove)
    if as_json:
        output.print_json({"added": done.added, "removed": done.removed})
        return
    for names, how in ((done.added, "added to"), (done.removed, "removed from")):
        if names:
            output.print_message(f"{user} was {how} {', '.join(names)}.")
    if not (done.added or done.removed):
        output.print_message("Nothing had to be changed.")


@users_command.command("reset-password", short_help="Give a user a temporary password.")
@_USER
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the password from stdin instead of making one.")
@click.option("--lasting", is_flag=True, help="With --stdin: it need not be changed at the next login.")
@REASON_OPTION
@JSON_OPTION
@click.pass_obj
def users_reset_command(
    context: Context, user: str, from_stdin: bool, lasting: bool, reason: str, as_json: bool
) -> None:
    """Give a user a new password, which is printed once and must be changed at the next login."""
    if lasting and not from_stdin:
        raise UsageError("--lasting is for a password from stdin")
    given = _password_from_stdin() if from_stdin else ""
    kind = "generated" if not given else "lasting" if lasting else "temporary"
    with recorded_change(context, "users reset-password", reason, f"user {user}, {kind} password") as users:
        changed, made = users.reset_password(users.find(user).id, given, not lasting)
    print_user(changed, f"{changed.username} has a new password.", as_json, made)


def _password_from_stdin() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    given = sys.stdin.readline().removesuffix("\n")
    if not given:
        raise UsageError("the password is empty", hint="It is the first line of stdin.")
    return given


def _add_action(name: str, act: "Callable[[Users, str], RealmUser]", summary: str, done: str) -> None:
    """A command that does one thing, ACT, to a user, whom DONE names."""

    @users_command.command(name, help=summary)
    @_USER
    @REASON_OPTION
    @JSON_OPTION
    @click.pass_obj
    def command(context: Context, user: str, reason: str, as_json: bool) -> None:
        with recorded_change(context, f"users {name}", reason, f"user {user}") as users:
            changed = act(users, users.find(user).id)
        print_user(changed, done.format(changed.username), as_json)


_add_action(
    "disable",
    lambda users, id: users.disable(id),
    "Keep a user from logging in, and end its sessions.",
    "{} can't log in any more; its sessions have ended.",
)
_add_action("enable", lambda users, id: users.enable(id), "Let a user log in.", "{} can log in.")
_add_action(
    "unlock",
    lambda users, id: users.unlock(id),
    "Let a user who was locked log in again at once.",
    "{} is not locked.",
)
_add_action(
    "logout",
    lambda users, id: users.log_out(id),
    "End all sessions of a user, those at Helm as well. The user can log in again.",
    "The sessions of {} have ended.",
)


@users_command.command("sessions")
@_USER
@JSON_OPTION
@click.pass_obj
def users_sessions_command(context: Context, user: str, as_json: bool) -> None:
    """List the sessions of a user at Keycloak, the newest first."""
    from helmd.model.api.users import UserSessionBody

    users = realm_users(context)
    found = users.sessions(users.find(user).id)
    if as_json:
        bodies = [
            UserSessionBody(each.id, each.address, each.started, each.last_access, each.clients) for each in found
        ]
        output.print_json([to_json(body) for body in bodies])
        return
    rows = [(_shown(each.started), _shown(each.last_access), each.address, ", ".join(each.clients)) for each in found]
    for line in output.table(("BEGAN", "LAST USED", "FROM", "FOR"), rows):
        output.print_line(*line)


users_command.add_command(users_import_command)
users_command.add_command(users_export_command)


def _name(user: "RealmUser") -> str:
    return f"{user.first_name} {user.last_name}".strip()


def _shown(time: datetime | None) -> str:
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")
