"""``python -m fedtl``: the command line."""

import sys

from fedtl.cli import main

if __name__ == "__main__":
    sys.exit(main())
