"""Sites that always fail, send nonsense or say they are another: named, left out, and no harm."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from looked import failures_of, head_of, rounds_of
from machines import eventually
from trial import Trial, recipe

HERE = Path(__file__).parent
STRICT = "unprotected = false\nclear_metrics = true\n"


def test_only_usable_updates_count_and_everybody_else_is_named(trial: Trial) -> None:
    trial.make("never", policy=STRICT)
    trial.make("twin", called="north")  # the name of another site, the key of its own
    for name in ("never", "twin"):
        trial.up(name)
    for name in ("fails", "nan", "shape"):
        trial.make(name)
        trial.up(name, agent=(sys.executable, str(HERE / "strange_agent.py"), name))
    wrong = {
        "fails": "site.failed",
        "nan": "update.not-finite",
        "shape": "update.shape",
    }
    assert trial.ready(*wrong, "never", "twin")
    plain = recipe("odd", rounds=2, least_sites=6, patience=1.0)
    with trial.run(plain) as followed:
        assert followed.ends() == 0, followed.text
        text = followed.text
    assert failures_of(followed.folder) == [wrong, wrong]
    assert rounds_of(followed.folder) == [1, 2]
    for name, code in wrong.items():
        assert f"{name} ({code})" in text
    assert "twin (calls itself 'north', but its key is 'twin')" in text
    expected = trial.simulated(plain, trial.names)
    np.testing.assert_array_equal(head_of(followed.folder)["weight"], expected["weight"])
    assert "never (cannot take part (policy.unprotected))" in text
    assert "Miller" not in (trial.coordinator / "logs" / "superlink.log").read_text() + text
    assert "Miller" in (trial.site("fails") / "logs" / "agent.log").read_text()


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_is_a_day_wrong_is_named(trial: Trial, days: int, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for a clock of its own")
    library, name = tmp_path / "clock.so", "ahead" if days > 0 else "behind"
    command = [compiler, "-shared", "-fPIC", "-o", library, HERE / "wrong_clock.c"]
    subprocess.run(command, check=True)
    trial.make(name)
    trial.up(name, LD_PRELOAD=str(library), DAYS=str(days))

    def says() -> str:
        found = trial.status(name)["findings"]
        return next((f["what"] + f["cure"] for f in found if f["name"] == "connection"), "")

    assert eventually(lambda: "clock" in says(), pause=0.5), says()
    assert not trial.status(name)["connected"]
