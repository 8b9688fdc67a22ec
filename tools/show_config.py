#!/usr/bin/env python
"""Print a config, with where each value comes from: `wpl show-config`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("show-config"))
