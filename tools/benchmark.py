#!/usr/bin/env python
"""What a training step, a training sample or a prediction costs: `wpl benchmark`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("benchmark"))
