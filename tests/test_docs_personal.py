"""Every block of docs/personal-heads.md works as it stands, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fedtl.report.result import RunResult
from fedtl.strategies import STRATEGIES

PAGE = (Path(__file__).parent.parent / "docs" / "personal-heads.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.M | re.S)


def test_every_block_runs(tmp_path: Path) -> None:
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    for kind, title, text in BLOCK.findall(PAGE):
        if title:
            (tmp_path / title).write_text(text, "utf-8")
            continue
        assert kind == "bash"
        ran = subprocess.run(
            ["bash", "-ec", text],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, f"{text}\n{ran.stdout}\n{ran.stderr}"
    for run in ("apfl", "halfway"):
        result = RunResult.from_json((tmp_path / "runs" / run / "report.json").read_text())
        assert all(site.personal is not None for site in result.sites), run


def test_every_strategy_with_personal_heads_is_on_the_page() -> None:
    own = [name for name, target in STRATEGIES.items() if "strategies.personal" in target]
    assert len(own) == 6
    assert all(f"| `{name}` |" in PAGE for name in own)
