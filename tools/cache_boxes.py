#!/usr/bin/env python
"""Keep a detector's boxes of whole data sets in a file: `wpl cache-boxes`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("cache-boxes"))
