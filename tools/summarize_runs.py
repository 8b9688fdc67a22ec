#!/usr/bin/env python
"""Mean and spread over seeds of what runs reached at their end: `wpl summarize`."""

import sys

from wpl_d2.cli import run

if __name__ == "__main__":
    sys.exit(run("summarize"))
