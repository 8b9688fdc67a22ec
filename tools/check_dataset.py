#!/usr/bin/env python
"""Check a data set: `wpl check`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("check"))
