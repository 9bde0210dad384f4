"""Bodies about one-time links."""

from dataclasses import dataclass, field

from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class LoginLink:
    """A one-time link."""

    url: str = field(metadata=described("what a browser opens; the secret is its fragment"))
    expires_in: int = field(metadata=described("for how many seconds it works", example=60))


@dataclass(frozen=True, slots=True)
class LinkSecret:
    """What the page of a one-time link sends."""

    secret: str = field(metadata=described("the fragment of the link's URL", maxLength=200))


@dataclass(frozen=True, slots=True)
class OpenedLink:
    """Where the session that a one-time link opened leads to."""

    location: str = field(metadata=described("the path of a page"))
