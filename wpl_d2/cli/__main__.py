"""`python -m wpl_d2.cli` is `wpl`, also where the package was not installed."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
