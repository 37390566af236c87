"""Every command in a README works: each is run here, in a folder like a user's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "server/README.md", "client/README.md", "CONTRIBUTING.md")
# what runs this very test, and `make format`, which would edit the checkout
NOT_HERE = ("make test", "make check", "make format", "make longtest")
ARGS = {
    "make simulate": "--quiet --out OUT",
    "make federation": "--sites 2 --out OUT -- --rounds 1 --quiet",
}
"""The runs of a user, made to fit into a test."""


def commands() -> list[str]:
    """Return the distinct commands of all bash blocks, comments left out."""
    found: dict[str, None] = {}
    for readme in READMES:
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / readme).read_text("utf-8"), re.S):
            if "fedtl server up" in block:  # one after the other: tests/test_readme_walk.py
                continue
            for line in block.splitlines():
                command = line.split("  #")[0].strip()
                if command and not command.startswith(NOT_HERE):
                    found[command] = None
    return list(found)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder: the checkout's apps and recipes, and a few images of his own."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("server", "client", "simulations"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns(".peers", "results")
        )
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    # Flower lets uv install an app's requirements beside the environment it runs in, which has them
    # all: here it is told so, for 5 GB less to fetch and one torch instead of two
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"[\[<>=]", needed)[0] for needed in project["dependencies"]]
    there = ", ".join(f"\"{name}; python_version < '3'\"" for name in names)
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n[tool.uv]\noverride-dependencies = [{there}]\n")
    rng = np.random.default_rng(0)
    for at, label in enumerate(("benign", "malignant")):
        (folder / "images" / label).mkdir(parents=True)
        for n in range(40):
            pixels = rng.integers(60 * at, 60 * at + 120, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{n}.png")
    yield folder
    subprocess.run(["pkill", "-f", str(folder)], check=False)


LONG = "make federation"  # the ten commands of a first federation are run by test_readme_walk.py


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=pytest.mark.long) if c == LONG else c for c in commands()]
)
def test_a_command_of_a_readme_works(command: str, workplace: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # beside the app: Flower packs what it finds in the app's folder
        "FLWR_HOME": str(workplace.with_name(f"{workplace.name}-flwr-home")),
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    cwd = workplace
    if command.startswith("make "):
        cwd = ROOT
        made = workplace / command.replace(" ", "-")
        command += f' ARGS="{ARGS.get(command, "--quiet")}"'.replace("OUT", str(made))
    if command.startswith("fedtl compare"):  # run in full by tests/test_docs_strategy.py
        command += " --list"
    command = command.replace("/path/to/recipe.toml", str(workplace / "simulations/digits.toml"))
    command = command.replace("/path/to/runs", str(workplace / "own-runs"))
    # a federation that is interrupted stops all its processes; one that is killed cannot
    patient = ["timeout", "--signal=INT", "--kill-after=120", "600", *shlex.split(command)]
    done = subprocess.run(patient, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if command.startswith("flwr run"):
        assert "Global head on held-out data" in done.stdout + done.stderr


def test_the_readmes_have_commands() -> None:
    found = commands()
    assert "make simulate" in found
    assert len(found) > 15
