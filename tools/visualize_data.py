#!/usr/bin/env python
"""Draw what training is fed: `wpl visualize`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("visualize"))
