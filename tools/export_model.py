#!/usr/bin/env python
"""Export a model: `wpl export`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("export"))
