"""The blocks of a page of documentation, and what runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return language, file name and text of every block."""
    return _BLOCK.findall(page.read_text("utf-8"))


def run_blocks(page: Path, folder: Path) -> list[str]:
    """Write the files and run the commands of a page in its order; return the commands."""
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    done = []
    for kind, title, text in blocks(page):
        if title:
            (folder / title).write_text(text, "utf-8")
        elif kind == "bash":
            for command in text.splitlines():
                ran = subprocess.run(
                    ["bash", "-c", command],
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                )
                assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
                done.append(command)
        else:
            assert kind == "toml"
            assert tomllib.loads(text)
    return done
