"""Every block of docs/personal-heads.md works as it stands, one after the other."""

from __future__ import annotations

from pathlib import Path

from pages import DOCS, run_blocks

from fedtl.report.result import RunResult
from fedtl.strategies import STRATEGIES

PAGE = DOCS / "personal-heads.md"


def test_every_block_runs(tmp_path: Path) -> None:
    assert len(run_blocks(PAGE, tmp_path)) == 3
    for run in ("apfl", "halfway"):
        result = RunResult.from_json((tmp_path / "runs" / run / "report.json").read_text())
        assert all(site.personal is not None for site in result.sites), run


def test_every_strategy_with_personal_heads_is_on_the_page() -> None:
    own = [name for name, target in STRATEGIES.items() if "strategies.personal" in target]
    assert len(own) == 6
    assert all(f"| `{name}` |" in PAGE.read_text("utf-8") for name in own)
