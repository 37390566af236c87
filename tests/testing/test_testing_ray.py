"""The law that is looked at on request: the same head on Ray, also where sites remember."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra 'ray'"),
]


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_the_head_on_ray_is_that_of_the_local_grid(name: str) -> None:
    command = [sys.executable, "-m", "fedtl", "check-strategy", name, "--law", "ray", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (verdict,) = json.loads(done.stdout[done.stdout.index("{") :])["verdicts"]
    assert (verdict["law"], verdict["outcome"]) == ("ray", "kept")
