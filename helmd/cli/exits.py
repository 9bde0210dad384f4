"""Exit codes of helmctl.

3 and 4 are those of systemctl(1) (not running, no such unit), 69 and 77 those of sysexits.h, 124 that of timeout(1),
130 and 141 those that a shell has for a program ended by SIGINT or SIGPIPE.
"""

OK = 0
FAILED = 1
USAGE = 2
INACTIVE = 3
UNKNOWN_SERVICE = 4
UNREACHABLE = 69
DENIED = 77
TIMEOUT = 124
INTERRUPTED = 130
OUTPUT_CLOSED = 141

EXIT_OF_CODE = {
    "unknown_service": UNKNOWN_SERVICE,
    "usage": USAGE,
    "helmd_away": UNREACHABLE,
    "denied": DENIED,
    "timeout": TIMEOUT,
}
"""Exit codes by `HelmError.code`; FAILED for all others."""


def exit_of(code: str) -> int:
    """Return the exit code for `HelmError.code`."""
    return EXIT_OF_CODE.get(code, FAILED)
