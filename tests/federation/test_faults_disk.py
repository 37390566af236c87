"""A disk that is full, at a site and at the server: said so, and everything goes on afterwards."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from looked import charges, failures_of, head_of, left_behind, name_of, rounds_of
from machines import eventually
from trial import FEDTL, Trial, recipe

from fedtl.launch import services
from fedtl.launch.coordinator.up import up

ALL = {"least_updates": 3, "least_sites": 3, "patience": 1.0, "retries": 30}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Put a small disk of its own under an empty folder."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    try:
        yield
    finally:
        services.stop(folder)  # a site that lives there
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def test_a_site_with_a_full_disk_is_left_out_and_comes_back(trial: Trial) -> None:
    with small_disk(trial.site("narrow"), "2m"):
        trial.make("narrow")
        trial.up("narrow")
        assert trial.ready("narrow")
        wanted = recipe("narrow", rounds=6, noise=True, least_sites=4, patience=1.0)
        with trial.run(wanted) as followed:
            assert followed.reached(1)
            filler = fill(trial.site("narrow"))
            told = "narrow (disk.full)"
            assert eventually(lambda: told in followed.text or followed.has(4), 240)
            filler.unlink()
            assert followed.ends() == 0, followed.text
            assert told in followed.text
        failed = [failures.get("narrow", "") for failures in failures_of(followed.folder)]
        assert failed[0] == failed[-1] == ""
        assert set(failed) == {"", "disk.full"}
        assert rounds_of(followed.folder) == [1, 2, 3, 4, 5, 6]
        paid = charges(trial.site("narrow"), name_of(followed.folder))["train"]
        assert set(paid.values()) == {1}
        assert {1, 6} <= set(paid)


def test_a_server_that_is_full_or_stopped_says_so_and_the_run_is_resumed(trial: Trial) -> None:
    plain = recipe("crowded", rounds=3, **ALL)
    runs = trial.coordinator / "runs"
    with small_disk(runs, "3m"):
        with trial.run(plain) as followed:
            assert followed.reached(1)
            filler = fill(runs)
            assert followed.ends() == 2
            assert "The disk is full" in followed.text
            assert f"go on with: fedtl run --on {trial.coordinator} --resume" in followed.text
            assert "Traceback" not in followed.text
        filler.unlink()
        with trial.run(plain, resume=followed.folder) as resumed:
            assert resumed.reached(2)
            assert resumed.doing("west", "training")
            resumed.process.send_signal(signal.SIGTERM)
            assert resumed.ends() == 130
            assert "The run goes on without you" in resumed.text
        subprocess.run([FEDTL, "server", "down", trial.coordinator], check=True)
        assert left_behind(trial.coordinator) == []
        assert resumed.progress().state == "stopped"
        with trial.run(plain, resume=followed.folder) as refused:
            assert refused.ends() == 2
            assert "is not up. Start it: fedtl server up" in refused.text
        up(trial.coordinator)
        with trial.run(plain, resume=followed.folder) as resumed:
            assert resumed.ends() == 0, resumed.text
        assert rounds_of(followed.folder) == [1, 2, 3]
        expected = trial.simulated(plain, trial.names)
        np.testing.assert_array_equal(head_of(followed.folder)["weight"], expected["weight"])
        assert trial.ready(*trial.names)
