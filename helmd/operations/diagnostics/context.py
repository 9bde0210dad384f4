"""The context of ``helmctl doctor``: an account with its suite; parts are loaded on first use."""

import os
from functools import cached_property

from helmd.files.account_names import name_of_uid
from helmd.model.config.settings import Settings
from helmd.model.layout import Layout
from helmd.model.suite.service import Registry
from helmd.operations.configuration.effective import Effective, load_effective
from helmd.systemd.bus import Manager


class DoctorContext:
    """Parts raise ConfigurationError or BusError if they cannot be loaded."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @cached_property
    def account(self) -> str:
        return name_of_uid(os.getuid())

    @property
    def uid(self) -> int:
        return self.layout.uid

    @property
    def set_up(self) -> bool:
        """Whether helmctl setup was run for this account."""
        return self.layout.config.is_dir()

    @cached_property
    def effective(self) -> Effective:
        return load_effective(self.layout)

    @property
    def settings(self) -> Settings:
        return self.effective.settings

    @property
    def suite(self) -> Registry:
        return self.effective.registry

    @cached_property
    def manager(self) -> Manager:
        return Manager()
