"""The command line: ``fedtl simulate``, ``report``, ``predict`` and what belongs to them.

Importing this package imports nothing heavy, so that ``--help`` answers at once: a command imports
the library when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see :func:`fedtl.cli.door.main`."""
    try:
        from fedtl.cli.door import main as door

        return door(argv)
    except KeyboardInterrupt:  # while commands are put together
        print("Stopped.", file=sys.stderr)
        return 130
