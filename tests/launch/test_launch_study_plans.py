"""The studies that come with fedtl are whole: every cell of them can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtl.launch.study.check import check_cells
from fedtl.recipe.study import load_plan

STUDIES = Path(__file__).parents[2] / "simulations" / "studies"
CELLS = {
    "example": 27,
    "label-skew": 48,
    "pretrained-start": 12,
    "breakdown": 60,
    "attacks": 870,
    "stragglers": 18,
}


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_study_that_comes_with_fedtl_can_be_run(path: Path) -> None:
    plan = load_plan(path)
    assert len(plan.cells) == CELLS[plan.name]
    assert min(check_cells(plan.cells)) >= 1
    assert len(plan.seeds) == 3
