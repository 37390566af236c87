"""An agent whose site trains when it is let: `python slow_agent.py FILE FOLDER`.

The file says how many trainings may have ended by now.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from fedtl.cli.agent import agent
from fedtl.errors import SiteFailure
from fedtl.site import cohort
from fedtl.site.site import Site
from fedtl.types import Arrays
from fedtl.wire.messages import Request


def main(file: str, folder: str) -> None:
    trained, trainings = cohort._trained, count(1)

    def slow(sites: Sequence[Site], request: Request) -> list[Arrays | SiteFailure]:
        number = next(trainings)
        while int(Path(file).read_text() or 0) < number:
            time.sleep(0.1)
        return list(trained(sites, request))

    cohort._trained = slow  # type: ignore[assignment]
    agent(Path(folder), mode="600", quiet=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
