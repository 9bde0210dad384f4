"""What is declared about a setting; `helmd.model.config.schema` and `service_schema` beside it have them all."""

from typing import NamedTuple

from helmd.model.config.validators import Reader


class Setting(NamedTuple):
    """One key. ``key`` is dotted below its table; ``default`` is documented; it applies when the key is absent."""

    key: str
    read: Reader
    kind: str
    default: str
    meaning: str
