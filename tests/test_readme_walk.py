"""The first federation of server/README.md: its ten commands, exactly as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtl.launch import services
from fedtl.privacy.ledger import Ledger
from fedtl.report.result import RunResult

ROOT = Path(__file__).parent.parent
HEADING = "## A first federation on one machine"


def commands() -> list[str]:
    text = (ROOT / "server" / "README.md").read_text("utf-8").partition(HEADING)[2]
    block = re.search(r"```bash\n(.*?)```", text, re.S)
    return block[1].splitlines() if block else []


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder as a user's checkout, on a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="fedtl") as made:
        folder = Path(made)
        for name in ("federation.py", "federation.toml"):
            (folder / "simulations").mkdir(exist_ok=True)
            shutil.copy(ROOT / "simulations" / name, folder / "simulations" / name)
        try:
            yield folder
        finally:
            for state in (folder / "trial").glob("*/logs"):
                services.stop(state.parent)


def test_ten_commands_of_the_readme_are_a_federation(place: Path) -> None:
    lines = commands()
    assert len(lines) == 10
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FEDTL_HOME": str(place / "home"),
    }
    said = {}
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said[line] = done.stdout
    (told,) = [text for line, text in said.items() if line.startswith("fedtl run")]
    assert "5 of 5 rounds" in told
    (run,) = (place / "trial" / "coordinator" / "runs").iterdir()
    result = RunResult.from_json((run / "report.json").read_text("utf-8"))
    assert result.status == "finished"
    assert {site.name for site in result.sites} == {"site-1", "site-2"}
    for name in ("site-1", "site-2"):
        with Ledger.open(place / "trial" / name / "ledger.sqlite", read_only=True) as ledger:
            assert ledger.verify().entries > 0
    assert not left_over(place), "the last two commands stop everything"


def left_over(place: Path) -> list[str]:
    states = [services.status(folder) for folder in (place / "trial").iterdir() if folder.is_dir()]
    sockets = [path.name for path in place.rglob("*.sock")]
    return [json.dumps(state, default=str) for state in states if state] + sockets
