"""A toy site served by an agent in a process of its own: `python agent_site.py SOCKET LEDGER`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import numpy as np
from toys import Toys

from fedtl.agent.server import serving
from fedtl.privacy.ledger import DataSet, Ledger


def main(socket: str, ledger: str, simulated: str = "") -> None:
    site = Toys(simulated=bool(simulated)).site("site-b")
    site.ledger = Ledger.open(Path(ledger), durable=False)
    site.dataset = DataSet.of(np.arange(96, dtype=np.uint8).reshape(3, 32))
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    with serving(site, Path(socket)):
        print("serving", flush=True)
        done.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
