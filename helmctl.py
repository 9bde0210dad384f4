#!/usr/bin/python3 -EsXutf8
"""helmctl: the command line of HiveMatrix Helm. The commands are in `helmd.cli`.

-X utf8: files are read and written as UTF-8 in any locale; `helmd.cli.output` encodes what is printed.
"""

from helmd.cli.main import run

if __name__ == "__main__":
    run()
