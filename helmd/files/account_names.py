"""Names of accounts by their uid."""

import pwd


def name_of_uid(uid: int) -> str:
    """Return the name of an account, or the number where it has no entry in passwd(5), as ls(1) does.

    An account of a directory service has none while that is away.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
