#!/usr/bin/env python
"""Prepare VOC, Cityscapes, COCO, ADE20K, VOC animals or NYUv2: `wpl prepare`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("prepare"))
