"""The page about known strategies says what the check says today."""

from __future__ import annotations

from pathlib import Path

import flwr.serverapp.strategy as flower
import pytest

from fedtl.strategies import STRATEGIES
from fedtl.testing.table import flowers_own, page
from fedtl.testing.why import WHY

PAGE = Path(__file__).parents[2] / "docs" / "strategies-checked.md"


@pytest.fixture(scope="module")
def text() -> str:
    return page()


def test_the_page_is_up_to_date(text: str) -> None:
    again = "write it anew: python -m fedtl.testing.table docs/strategies-checked.md"
    assert text == PAGE.read_text("utf-8"), again


def test_every_strategy_is_on_it(text: str) -> None:
    flowers = {
        name for name in flower.__all__ if name not in ("Strategy", "Result")
    }  # the base class, and what a run returns
    assert set(flowers_own()) == flowers
    own = {name for name, target in STRATEGIES.items() if not target.startswith("flwr.")}
    for name in own | flowers:
        assert f"\n| {name} | " in text


def test_whatever_breaks_is_explained(text: str) -> None:
    broken = [line for line in text.splitlines() if line.startswith("**")]
    assert len(broken) >= 8
    for line in broken:
        assert line.partition(".** ")[2], f"{line} lacks a reason in fedtl/testing/why.py"
    for name in WHY:
        assert f"**{name}.** " in text, f"{name} breaks nothing any more"
