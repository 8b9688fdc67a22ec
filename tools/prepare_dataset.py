#!/usr/bin/env python
"""Prepare VOC, Cityscapes, COCO or VOC animals: `wpl prepare`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("prepare"))
