"""How a Python program ends when its virtual environment does not suit it: a package that is missing, a version that is
too old for its code.
"""

import re
from collections.abc import Sequence

from helmd.model.suite.service import Service

_MISSING = re.compile(r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)'?$")
_SYNTAX = re.compile(r"(?:SyntaxError|IndentationError): ")
_OTHER_ERROR = re.compile(r"^[\w.]*(?:Error|Exception)\b")
_FILE = re.compile(r'File "([^"]+)", line \d+')


def environment_cause(service: Service, printed: Sequence[str]) -> str:
    """Return what is wrong with the environment of a service that printed this last, and what to do; empty if nothing
    is.
    """
    if service.type != "python" or service.start_command:
        return ""
    environment = service.python_bin.rpartition("/bin/")[0]
    file, cause = "", ""
    for line in printed:
        if found := _FILE.search(line):
            file = found[1]
        elif found := _MISSING.search(line):
            install = f"; to install what it requires, run in its directory: {environment}/bin/pip install -r"
            cause = f"Its virtual environment lacks {found[1]}" + (
                f"{install} requirements.txt." if environment else "."
            )
        elif _SYNTAX.match(line):
            cause = (
                f"Its Python does not understand {file or 'its code'}, which may be written for a newer version; remove"
                f" {environment or 'its virtual environment'}, and make it with one."
            )
        elif _OTHER_ERROR.match(line):
            cause = ""
    return cause
