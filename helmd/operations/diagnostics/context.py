"""What ``helmctl doctor`` checks: an account with its suite, each part loaded when it is first used."""

import os
import pwd
from functools import cached_property

from helmd.model.config.settings import Settings
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.load import load_settings, load_suite
from helmd.systemd.bus import Manager


class DoctorContext:
    """Parts raise ConfigurationError or BusError if they cannot be loaded."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @cached_property
    def account(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name

    @property
    def uid(self) -> int:
        return self.layout.uid

    @property
    def set_up(self) -> bool:
        """Whether helmctl setup was run for this account."""
        return self.layout.config.is_dir()

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.layout)

    @cached_property
    def suite(self) -> Registry:
        return load_suite(self.layout, self.settings)

    @cached_property
    def manager(self) -> Manager:
        return Manager()
