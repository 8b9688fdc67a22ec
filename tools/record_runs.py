#!/usr/bin/env python
"""Print the evaluations of runs as rows of a table of runs: `wpl record`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("record"))
