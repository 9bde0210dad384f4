"""The URIs by which services reach their databases. Quick to import: without psycopg."""

from urllib.parse import quote

from helmd.postgres.configuration import Cluster


def service_uri(cluster: Cluster, role: str, database: str | None = None, password: str | None = None) -> str:
    """Return the URI by which a service reaches its database over the socket. With a PASSWORD, never print it."""
    place = quote(str(cluster.socket), safe="/")
    who = _userinfo(role, password)
    return f"postgresql://{who}@/{quote(database or role, safe='')}?host={place}&port={cluster.port}"


def external_dsn(host: str, port: int, role: str, password: str, database: str | None = None) -> str:
    """Return the URI of a service's database on an external server. Holds the password: never print it."""
    place = f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    return f"postgresql://{_userinfo(role, password)}@{place}:{port}/{quote(database or role, safe='')}"


def _userinfo(role: str, password: str | None) -> str:
    return quote(role, safe="") if password is None else f"{quote(role, safe='')}:{quote(password, safe='')}"
