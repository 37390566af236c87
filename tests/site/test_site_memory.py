"""What a site remembers: a repeated round must begin with what it began with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtl.errors import CacheError
from fedtl.site.memory import Memory


def one(value: float) -> dict[str, np.ndarray]:
    return {"control/weight": np.full((2, 3), value, np.float32)}


def value(memory: Memory, round_: int, run: str = "run", objective: str = "scaffold") -> float:
    found = memory.before(run, objective, round_)
    return float(found["control/weight"][0, 0]) if found else float("nan")


@pytest.mark.parametrize("kind", ["process", "folder", "shared"])
def test_a_repeated_round_begins_with_what_it_began_with(kind: str, tmp_path: Path) -> None:
    memory = Memory(None if kind == "process" else tmp_path, alone=kind != "shared")
    for round_ in (1, 2, 4):  # the site was not drawn in round 3
        memory.keep("run", "scaffold", round_, one(round_))
    assert [value(memory, r) for r in (5, 4)] == [4, 2]
    memory.keep("run", "scaffold", 4, one(40))
    assert [value(memory, r) for r in (9, 4)] == [40, 2]
    assert np.isnan(value(memory, 9, run="other"))
    assert np.isnan(value(memory, 9, objective="feddyn"))
    assert np.isnan(value(memory, 1))


def test_a_run_that_begins_anew_forgets(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for round_ in (1, 2):
        memory.keep("run", "scaffold", round_, one(round_))
    memory.keep("run", "scaffold", 1, one(7))
    assert value(memory, 3) == 7


def test_a_restarted_site_remembers_and_another_process_sees_it(tmp_path: Path) -> None:
    Memory(tmp_path / "deep").keep("run", "scaffold", 1, one(1))
    shared = Memory(tmp_path / "deep", alone=False)
    assert value(shared, 2) == 1
    Memory(tmp_path / "deep").keep("run", "scaffold", 2, one(2))
    assert value(shared, 3) == 2
    assert (tmp_path / "deep").stat().st_mode & 0o077 == 0


def test_of_very_many_runs_the_oldest_are_forgotten(tmp_path: Path) -> None:
    memory = Memory(tmp_path, alone=False)
    for run in range(70):
        memory.keep(f"run-{run}", "scaffold", 1, one(run))
    assert len(list(tmp_path.iterdir())) == 64
    assert value(memory, 2, run="run-69") == 69


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.keep("run", "scaffold", 1, one(1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CacheError, match=file.name) as error:
        Memory(tmp_path).before("run", "scaffold", 2)
    assert error.value.code == "memory.damaged"


def test_a_memory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    Memory(tmp_path).keep("run", "scaffold", 1, one(1))
    (file,) = tmp_path.iterdir()
    file.unlink()
    (tmp_path / f"{file.name}.part").mkdir()  # nobody can write there, not even root
    with pytest.raises(CacheError) as error:
        Memory(tmp_path).keep("run", "scaffold", 1, one(1))
    assert error.value.code == "memory.unwritten"
