"""An agent whose site sends nonsense: `python strange_agent.py nan|shape|fails FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedtl.cli.agent import agent
from fedtl.errors import SiteFailure
from fedtl.site import cohort
from fedtl.site.site import Site
from fedtl.types import Arrays
from fedtl.wire.messages import Request


def main(how: str, folder: str) -> None:
    honest = cohort._trained

    def spoiled(sites: Sequence[Site], request: Request) -> list[Arrays | SiteFailure]:
        if how == "fails":
            raise ValueError("the picture of Mrs Miller")
        found: list[Arrays | SiteFailure] = []
        for arrays in honest(sites, request):
            weight = arrays["weight"]
            found.append({"weight": weight[:, :-1] if how == "shape" else weight * np.nan})
        return found

    cohort._trained = spoiled  # type: ignore[assignment]
    agent(Path(folder), mode="600", quiet=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
