"""pystemd's D-Bus connection, without the rest of pystemd.

``import pystemd`` loads lxml for introspection, which Helm doesn't use; that takes 35 of 45 ms, and helmctl is started
a hundred times a day. So the package is entered by its directory, without running its ``__init__``.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def _load() -> tuple[Any, Any]:
    entered = "pystemd" in sys.modules
    if not entered:
        found = importlib.util.find_spec("pystemd")
        if found is None or found.submodule_search_locations is None:
            raise ImportError("pystemd is not installed (Debian package python3-pystemd)")
        bare = ModuleType("pystemd")
        bare.__path__ = list(found.submodule_search_locations)
        sys.modules["pystemd"] = bare
    try:
        return importlib.import_module("pystemd.dbuslib"), importlib.import_module("pystemd.dbusexc")
    finally:
        if not entered:
            del sys.modules["pystemd"]


_dbuslib, _dbusexc = _load()
DBus: Any = _dbuslib.DBus
apply_signature: Any = _dbuslib.apply_signature
path_encode: Any = _dbuslib.path_encode
DBusBaseError: type[Exception] = _dbusexc.DBusBaseError
