"""One federation for all tests here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from connect_proxy import ConnectProxy
from deployed import Deployed, make, start
from sandbox import MISSING, end


@pytest.fixture(scope="session")
def deployed() -> Iterator[Deployed]:
    """Start server and sites, run a recipe, and stop them."""
    if MISSING:
        pytest.skip(MISSING)
    place = Path(tempfile.mkdtemp(prefix="fedtl"))
    place.chmod(0o755)
    with ConnectProxy() as proxy:
        made = make(place, proxy)
        try:
            start(made)
            yield made
        finally:
            for process in reversed(made.processes.values()):
                end(process)
            shutil.rmtree(place, ignore_errors=True)
