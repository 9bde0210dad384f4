#!/usr/bin/python3 -EsXutf8
"""helmctl: the command line of HiveMatrix Helm. The commands are in `helmd.cli`.

-X utf8: files are read and written as UTF-8 in any locale; `helmd.cli.output` encodes what is printed.
"""

import gc

if __name__ == "__main__":
    # By default the garbage collector takes a sixth of what a short command takes: while modules are imported, and at
    # the end, unless nothing is left to it then.
    gc.set_threshold(50_000)
    from helmd.cli.main import run

    try:
        run()
    finally:
        gc.freeze()
