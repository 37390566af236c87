"""One warm cache and one finished run for all tests here, made by a real process."""

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # typer 0.20, the newest that Flower allows, still imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    import typer  # noqa: F401

SMALL = ("--set", "data.limit=160", "--set", "backbone.image_size=32", "--rounds", "3")


@dataclass(frozen=True)
class Ran:
    """A finished process, and the run folder it was told to use."""

    code: int
    out: str
    err: str
    folder: Path


@dataclass(frozen=True)
class Shell:
    """Runs ``fedtl`` as a user does: in a process of its own, away from a terminal."""

    home: Path
    cwd: Path

    @property
    def env(self) -> dict[str, str]:
        # one thread: with more, small tensors wait for cores that the other tests use
        settings = {"FEDTL_HOME": str(self.home), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        return {**os.environ, **settings}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "fedtl", *arguments]

    def __call__(self, *arguments: str, folder: Path | None = None) -> Ran:
        done = subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr, folder or self.cwd)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.env,
            cwd=self.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def finished(shell: Shell) -> Ran:
    """Return a finished run of the embedded default, made smaller."""
    folder = shell.cwd / "finished"
    ran = shell("simulate", *SMALL, "--out", str(folder), folder=folder)
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture
def warm(shell: Shell, finished: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let commands in this process use the warm cache, in an empty working folder."""
    monkeypatch.setenv("FEDTL_HOME", str(shell.home))
    monkeypatch.chdir(tmp_path)
    return finished.folder


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let commands in this process use an empty home, in an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path
