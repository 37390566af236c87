"""Serve sites with synthetic features from agents, in one process with a socket for each.

Real sites as their agents see them: a durable ledger, a budget, noise of the system, stored
replies. Every answer is a line of FOLDER/answers.jsonl. Runs until it is told to stop.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fedtl.agent.server import Answered
    from fedtl.privacy.ledger import DataSet, Ledger
    from fedtl.site.site import Site
    from fedtl.train.fit import Examples

CLASSES, WIDTH, HELD_OUT, BUDGET = 10, 1281, 100, 1000.0
ANSWERS, READY = "answers.jsonl", "ready"


def socket_of(folder: Path, at: int) -> Path:
    """Return the socket of a site's agent."""
    return folder / f"{at}.sock"


def examples(rows: int, seed: int) -> Examples:
    """Return rows of unit length, the bias feature included, and labels."""
    import torch

    from fedtl.train.fit import Examples

    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, WIDTH), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Examples.of(torch.from_numpy(x), torch.from_numpy(random.integers(0, CLASSES, rows)))


def records(rows: int, seed: int) -> DataSet:
    """Return as many records as a ledger knows them."""
    from fedtl.privacy.ledger import DataSet

    random = np.random.default_rng([seed, 1])
    return DataSet.of(random.integers(0, 256, (rows, 32), dtype=np.uint8))


def site(at: int, rows: int, ledger: Ledger) -> Site:
    """Return a real site with its features warm."""
    from fedtl.privacy.ledger import Budget
    from fedtl.site.policy import SitePolicy
    from fedtl.site.site import Site

    trained, held_out = examples(rows, at), examples(HELD_OUT, 1000 + at)
    return Site(
        name=f"site-{at:03d}",
        classes=tuple(str(c) for c in range(CLASSES)),
        width=WIDTH,
        backbone="synthetic",
        load=lambda: (trained, held_out),
        ledger=ledger,
        dataset=records(rows, at),
        held_out_dataset=records(HELD_OUT, 1000 + at),
        policy=SitePolicy(budget=Budget(BUDGET, 1e-5)),
    )


def serve(folder: Path, *, sites: int, rows: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    from fedtl.agent.server import serving
    from fedtl.privacy.ledger import Ledger

    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with (folder / ANSWERS).open("w", encoding="utf-8") as file, ExitStack() as stack:

        def log(answered: Answered) -> None:
            file.write(json.dumps(asdict(answered)) + "\n")
            file.flush()

        for at in range(sites):
            ledger = stack.enter_context(Ledger.open(folder / f"{at}.sqlite"))
            made = site(at, rows, ledger)
            _ = made.examples
            stack.enter_context(serving(made, socket_of(folder, at), log=log))
        (folder / READY).touch()
        done.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for sockets, ledgers and the log of answers")
    parser.add_argument("--sites", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=600, help="default: %(default)s")
    arguments = parser.parse_args()
    serve(arguments.folder, sites=arguments.sites, rows=arguments.rows)


if __name__ == "__main__":
    main()
