#!/usr/bin/env python
"""What the segmentation metric of one image costs: `wpl benchmark-evaluation`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("benchmark-evaluation"))
