#!/usr/bin/python3 -EsSXutf8
"""helmctl: the command line of HiveMatrix Helm. The commands are in `helmd.cli`.

-X utf8: files are read and written as UTF-8 in any locale; `helmd.cli.output` encodes what is printed.
-S: the module `site` and the files that it reads take a twentieth of a short command's time.
"""

import gc
import sys

if __name__ == "__main__":
    if sys.flags.no_site:
        sys.path.append("/usr/lib/python3/dist-packages")
    # By default the garbage collector takes a sixth of what a short command takes: while modules are imported, and at
    # the end, unless nothing is left to it then.
    gc.set_threshold(50_000)
    from helmd.cli.main import run

    try:
        run()
    finally:
        gc.freeze()
