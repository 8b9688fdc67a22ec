#!/usr/bin/env python
"""Predict images or a video: `wpl predict`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("predict"))
