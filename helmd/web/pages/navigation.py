"""The pages that the rail leads to, and who may see each."""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from helmd.web.auth.roles import Identity, Role


@dataclass(frozen=True, slots=True)
class RailPlace:
    """A page in the rail. ``path`` is as in the route table, ``key`` what is pressed after ``g``."""

    path: str
    label: str
    icon: str
    key: str
    role: Role
    also: tuple[str, ...] = ()
    """Beginnings of paths of pages that belong to it."""


RAIL_PLACES = (
    RailPlace("/", "Overview", "layout-dashboard", "o", Role.CLIENT, ("/service/",)),
    RailPlace("/logs", "Logs", "scroll-text", "l", Role.BILLING),
    RailPlace("/metrics", "Metrics", "chart-line", "m", Role.TECHNICIAN),
    RailPlace("/modules", "Modules", "package", "p", Role.ADMIN, ("/apps",)),
    RailPlace("/jobs", "Jobs", "activity", "j", Role.ADMIN),
    RailPlace("/users", "Users", "users", "u", Role.ADMIN),
    RailPlace("/security", "Security", "shield", "s", Role.ADMIN),
    RailPlace("/audit", "Audit", "history", "a", Role.ADMIN),
)


@dataclass(frozen=True, slots=True)
class RailItem:
    """A place as the rail shows it."""

    place: RailPlace
    here: bool


def rail(identity: Identity, known: Set[str], path: str) -> Iterator[RailItem]:
    """Yield the places that IDENTITY may see, of those whose routes are KNOWN. PATH is that of the page, without a
    prefix.
    """
    for place in RAIL_PLACES:
        if place.path in known and identity.may(place.role):
            here = path == place.path or any(path.startswith(begin) for begin in place.also)
            yield RailItem(place, here or (place.path != "/" and path.startswith(f"{place.path}/")))
