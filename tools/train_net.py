#!/usr/bin/env python
"""Train or evaluate: `tools/train_net.py --config-file configs/quickstart.yaml [--num-gpus N] [KEY VALUE ...]`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("train_net"))
