"""What tests of a site share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtl.privacy.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open an empty ledger."""
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened
