#!/usr/bin/env python
"""Count a model's parameters, multiply-adds and activations: `wpl analyze`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("analyze"))
