"""Container files: what they copy is there, what they run are commands that fedtl has.

No container engine runs here. What can be checked without one is: the files themselves, their
commands against the real command line, the compose file by docker-compose where that is installed;
and tests/deploy/deployed.py runs a site as the file says, with a read-only root and without powers.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from sandbox import ROOT, words_of

from fedtl.cli.door import app

FILES = (ROOT / "client" / "Containerfile", ROOT / "server" / "Containerfile")
COMPOSE = ROOT / "server" / "compose.yaml"


def check_command(words: list[str]) -> None:
    """Parse a command as fedtl would, and run nothing."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while hasattr(command, "commands"):
        if (name := left.pop(0)) not in command.commands:
            raise click.NoSuchOption(name)
        command = command.commands[name]
    command.make_context(words[-1], left)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parent.name)
def test_an_image_copies_what_is_there_and_runs_what_fedtl_knows(file: Path) -> None:
    text = file.read_text("utf-8")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]]
    assert {"fedtl", "server/app.py", "client/app.py"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert [name for name in copied if f"!{name}" not in allowed] == []
    assert words_of(file, "ENTRYPOINT") == ["fedtl"]
    check_command(words_of(file, "CMD"))
    (health,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.M)
    program, *words = yaml.safe_load(health)
    assert program == "fedtl"
    check_command(words)
    assert re.search(r"^USER 10001$", text, re.M), "an image runs as root"


@pytest.mark.parametrize("bad", [["site", "up", "--forground"], ["server", "upp"]])
def test_a_command_that_fedtl_does_not_have_is_found(bad: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such"):
        check_command(bad)


def test_every_container_of_the_trial_is_guarded() -> None:
    services = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    assert set(services) == {"server", "north", "south", "west"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert (
            COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]
        ).is_file()
        images = [volume for volume in service["volumes"] if ":/data" in volume]
        assert all(volume.endswith(":ro") for volume in images)
        assert bool(images) == (name != "server")


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not there")
def test_docker_compose_accepts_the_trial() -> None:
    done = subprocess.run(
        ["docker-compose", "-f", str(COMPOSE), "config", "--quiet"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_of_the_trial_are_fedtls() -> None:
    text = (ROOT / "server" / "README.md").read_text("utf-8")
    block = re.search(r"```text\n(docker compose build.*?)```", text, re.S)
    assert block is not None
    checked = 0
    for line in block[1].replace("$site", "north").splitlines():
        words = shlex.split(line)
        if "exec" in words:
            check_command(words[words.index("fedtl") + 1 :])
        elif "run" in words and "--entrypoint" not in words:
            check_command(words[words.index("--rm") + 2 :])
        else:
            continue
        checked += 1
    assert checked == 5
