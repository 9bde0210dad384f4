"""The form for the settings of a service that a page changes: limits and environment, as its files have them."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from helmd.model.api.service_config import ServiceSetting
from helmd.model.config.registry_edit import MASK
from helmd.model.errors import HelmError
from helmd.model.layout import Layout
from helmd.operations.configuration.service_config import ServiceConfig, service_config
from helmd.web.pages.fresh_login import FreshLogin

LIMIT_FIELDS = (
    ("limits.memory_high", "Memory, throttled above", "512M"),
    ("limits.memory_max", "Memory, killed above", "1G"),
    ("limits.cpu_percent", "Share of one CPU", "150%"),
    ("limits.tasks", "Threads and processes", "500"),
    ("limits.open_files", "Open files", "4096"),
)
"""Settings of the form: key, label, an example."""


@dataclass(frozen=True, slots=True)
class FormField:
    """A setting in the form. ``value`` is what the file has; empty for the default. ``place`` is a file that is read
    later and has it as well: the form can't change it.
    """

    key: str
    label: str
    value: str
    example: str = ""
    masked: bool = False
    place: str = ""
    editable: bool = True


@dataclass(frozen=True, slots=True)
class OtherSetting:
    """A setting that the form does not change. ``place`` is the file with the line."""

    key: str
    value: str
    place: str


@dataclass(frozen=True, slots=True)
class SettingsForm:
    """The form for settings. ``refusal`` says why there is none; ``etag`` is that of what it was made from."""

    refusal: str = ""
    etag: str = ""
    file: str = ""
    faults: tuple[str, ...] = ()
    limits: tuple[FormField, ...] = ()
    environment: tuple[FormField, ...] = ()
    others: tuple[OtherSetting, ...] = ()
    login: FreshLogin = field(default_factory=FreshLogin)


async def settings_form(places: Layout, service: str, login: FreshLogin) -> SettingsForm:
    """Return the form for SERVICE; LOGIN is what a change needs of the reader."""
    try:
        found = await asyncio.to_thread(service_config, places, service)
    except (HelmError, OSError) as error:
        return SettingsForm(error.sentence if isinstance(error, HelmError) else str(error))
    return form_of(found, login)


def form_of(found: ServiceConfig, login: FreshLogin) -> SettingsForm:
    """Return the form for settings as they are written."""
    by_key = {setting.key: setting for setting in found.reply.settings}
    shown = {key for key, _, _ in LIMIT_FIELDS} | {"environment"}
    return SettingsForm(
        etag=found.etag,
        file=found.reply.file,
        faults=found.reply.faults,
        limits=tuple(_limit(key, label, example, by_key.get(key), found.later) for key, label, example in LIMIT_FIELDS),
        environment=tuple(_variables(by_key.get("environment"), found.later)),
        others=tuple(_other(setting) for setting in found.reply.settings if setting.key not in shown),
        login=login,
    )


def _other(setting: ServiceSetting) -> OtherSetting:
    # Text has no quotes; of anything else JSON's notation is that of TOML.
    value = setting.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return OtherSetting(setting.key, text, f"{setting.file}:{setting.line}" if setting.line else setting.file)


def _limit(key: str, label: str, example: str, setting: ServiceSetting | None, later: Mapping[str, str]) -> FormField:
    if setting is None:
        return FormField(key, label, "", example)
    return FormField(key, label, str(setting.value), example, place=later.get(key, ""), editable=key not in later)


def _variables(setting: ServiceSetting | None, later: Mapping[str, str]) -> Iterator[FormField]:
    """Yield the variables of the table environment, of whichever files."""
    if setting is None or not isinstance(setting.value, Mapping):
        return
    for name, value in setting.value.items():
        key = f"environment.{name}"
        yield FormField(
            key, str(name), str(value), masked=value == MASK, place=later.get(key, ""), editable=key not in later
        )
