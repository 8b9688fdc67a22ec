#!/usr/bin/env python
"""Judge pseudo-labels on images that have masks: `wpl judge`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("judge"))
