"""Changes one setting of a service in the account's ``services.toml``, and nothing else in it."""

from helmd.files.durable import write_atomically
from helmd.model.config.config_text import with_value
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import UsageError
from helmd.model.layout import Layout
from helmd.operations.configuration.load import load_suite


def set_in_registry(layout: Layout, settings: Settings, service: str, key: str, value: str) -> None:
    """Set KEY of a SERVICE of the suite to VALUE. Raises UsageError if it can't be set, or is overridden."""
    file = layout.registry_file
    by_hand = f'Set {key} = "{value}" for [services.{service}] by hand.'
    try:
        text = with_value(file.read_text(), "toml", f"services.{service}", key, value)
    except ValueError as problem:
        raise UsageError(f"{file}: {problem}", hint=by_hand) from None
    if getattr(load_suite(layout, settings, ConfigSource(str(file), text))[service], key) != value:
        raise UsageError(
            f"a file in {layout.registry_directory} sets {key} of {service}, and overrides {file}", hint=by_hand
        )
    write_atomically(file, text)
