"""``helmctl keycloak recover-admin``: a user of the suite can log in again as an admin, and Helm has its access again.

The owner of the machine can read Keycloak's database, so this needs no login. Keycloak's own command for that
(``kc.sh bootstrap-admin``) makes a temporary admin of the realm master while the server is stopped; with that, set-up
gives Helm's client its rights, and removes it.
"""

import os
import subprocess
from secrets import token_hex, token_urlsafe

from helmd.files.environment_file import put_secret, read_environment_file
from helmd.files.lock import locked
from helmd.keycloak import launch
from helmd.keycloak.admin.api import LoginRefusedError, RightsError, Server, Session, named, password_of, path_of
from helmd.model.config.settings import Settings
from helmd.model.errors import KeycloakError
from helmd.model.identity.realm import ADMINS, FIRST_ADMIN, WantedRealm, wanted_realm
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.identity.access import AdminLogin, NoAccessError, bootstrap_login, checked_session
from helmd.operations.identity.found import group_id
from helmd.operations.identity.keycloak import FirstAdmin, create_admin, generate_password, set_up_realm
from helmd.operations.identity.server import KeycloakUnit, Report, keycloak_unit, started_server, stop_server
from helmd.systemd.bus import Manager

_COMMAND_SECONDS = 180.0
"""Time limit of Keycloak's command in seconds, which takes about 10 s on an idle machine."""


def recover_admin(
    registry: Registry,
    layout: Layout,
    settings: Settings,
    manager: Manager,
    notify: Report,
    username: str = FIRST_ADMIN,
) -> FirstAdmin:
    """Make the user an admin of the suite, with a new password that must be changed at the first login.

    The user is created if missing. Keycloak is only stopped if Helm's client has no access to the realm.
    Raises KeycloakError, and LockedError while another process sets Keycloak up.
    """
    keycloak = keycloak_unit(registry)
    wanted = wanted_realm(keycloak.service, registry, settings)
    server = started_server(keycloak, manager, notify)
    try:
        checked_session(server, layout, wanted)
        first = set_up_realm(registry, layout, settings, manager, notify)
    except (NoAccessError, RightsError) as error:
        notify(f"Helm has not its access to Keycloak: {error.sentence}")
        with locked(layout.keycloak_lock, "Keycloak is being set up"):
            login = _left_over(server, keycloak, layout) or make_temporary_admin(keycloak, layout, manager, notify)
        first = set_up_realm(registry, layout, settings, manager, notify, login)
    if first and first.username == username:
        return first
    session = checked_session(started_server(keycloak, manager, notify), layout, wanted)
    return _enable_admin(session, wanted, username, notify)


def _left_over(server: Server, keycloak: KeycloakUnit, layout: Layout) -> AdminLogin | None:
    """Return the temporary admin of an interrupted attempt, if it can log in."""
    login = bootstrap_login(keycloak.service.name, layout)
    try:
        if login is not None:
            Session(server, password_of(login.name, login.password))
    except LoginRefusedError:
        return None
    return login


def make_temporary_admin(keycloak: KeycloakUnit, layout: Layout, manager: Manager, notify: Report) -> AdminLogin:
    """Create an admin of the realm master, while Keycloak is stopped, and start Keycloak again.

    Its password is stored like that of Keycloak's first temporary admin, so that set-up removes it.
    """
    login = AdminLogin(f"helm-recovery-{token_hex(4)}", token_urlsafe(24))
    name, file = keycloak.service.name, layout.secrets_file(keycloak.service.name)
    put_secret(file, launch.BOOTSTRAP_USERNAME, login.name)
    put_secret(file, launch.BOOTSTRAP_PASSWORD, login.password)
    stop_server(keycloak, manager, notify)
    try:
        notify("making a temporary admin of the realm master, which takes about 10 seconds")
        _bootstrap(keycloak, layout, manager)
    finally:
        manager.start(keycloak.unit)
        notify(f"starting {name}")
    started_server(keycloak, manager, notify)
    return login


def _bootstrap(keycloak: KeycloakUnit, layout: Layout, manager: Manager) -> None:
    """Run Keycloak's command with the environment of its unit. Raises KeycloakError with what it printed last."""
    variables = dict(each.partition("=")[::2] for each in manager.properties(keycloak.unit).get("Environment", ()))
    environment = {**variables, **read_environment_file(layout.secrets_file(keycloak.service.name))}
    home = layout.resolve(keycloak.service.path)
    command = launch.bootstrap_command(home, variables)
    try:
        # Without a terminal, so that it does not prompt.
        done = subprocess.run(
            command,
            cwd=home,
            env={"PATH": os.defpath, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KeycloakError(f"Keycloak's bootstrap-admin did not end within {_COMMAND_SECONDS:g} s") from None
    except OSError as problem:
        raise KeycloakError(f"Keycloak's bootstrap-admin could not be run: {problem}") from None
    if done.returncode:
        printed = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise KeycloakError(f"Keycloak's bootstrap-admin failed with exit code {done.returncode}", lines=printed[-10:])


def _enable_admin(session: Session, wanted: WantedRealm, username: str, notify: Report) -> FirstAdmin:
    """Create the user, or change what prevents its login as an admin."""
    users, password = path_of(wanted.name, "users"), generate_password()
    user = named(session.get(users, username=username, exact="true"), "username", username)
    if user is None:
        create_admin(session, wanted, username, password)
        notify(f"created user {username} in group {ADMINS}")
        return FirstAdmin(username, password)
    path = f"{users}{path_of(str(user['id']))}"
    if not user.get("enabled"):
        session.put(path, {**user, "enabled": True})
        notify(f"enabled user {username}")
    for credential in session.get(f"{path}/credentials") or ():
        if credential.get("type") != "password":
            session.delete(f"{path}/credentials{path_of(str(credential['id']))}")
            notify(f"removed a second factor of {username}: {credential.get('type')}")
    session.put(f"{path}/reset-password", {"type": "password", "value": password, "temporary": True})
    session.delete(f"{path_of(wanted.name)}/attack-detection/brute-force/users{path_of(str(user['id']))}")
    session.post(f"{path}/logout", {})
    notify(f"gave {username} a new password, and ended the sessions of {username}")
    if not any(group.get("name") == ADMINS for group in session.get(f"{path}/groups") or ()):
        session.put(f"{path}/groups{path_of(group_id(session, wanted.name, ADMINS))}", {})
        notify(f"added {username} to group {ADMINS}")
    return FirstAdmin(username, password)
