"""The command line: ``fedtl simulate``, ``report``, ``predict`` and what belongs to them.

Importing this package imports nothing heavy, so that ``--help`` answers at once: a command imports
the library when it runs.
"""

from fedtl.cli.door import main

__all__ = ["main"]
