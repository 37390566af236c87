"""A study: its cells are simulations, kept and taken up again, and one's fault is its own."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from small import run as simulated
from studies import BASE, TWO, faulty_file, plan_file

from fedtl.errors import CacheError, DataError, RecipeError, StrategyError
from fedtl.home import only_one
from fedtl.launch.study import run_study, state_of
from fedtl.launch.study.bench import Bench, data_key
from fedtl.launch.study.folder import cell_file
from fedtl.launch.study.pool import Schedule
from fedtl.launch.study.worker import _answer
from fedtl.recipe.study import load_plan
from fedtl.report.study_result import CellResult, StudyResult

PRIVATE = BASE.replace("enabled = false", 'epsilon = 8.0, metrics = "noised"')


def numbers(cell: CellResult) -> list[tuple[object, ...]]:
    """Return everything of a cell but its times."""
    return [
        (r.round, r.accuracy, r.loss, r.worst_site, r.n_bytes, r.bytes_up, r.epsilon, r.failures)
        for r in cell.rounds
    ]


def by_title(result: StudyResult) -> dict[str, list[tuple[object, ...]]]:
    return {f"{c.labels['strategy']} {c.seed}": numbers(c) for c in result.cells}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}


@pytest.mark.parametrize("base", [BASE, PRIVATE], ids=["open", "private"])
def test_a_cell_is_the_simulation_of_its_recipe(base: str, tmp_path: Path) -> None:
    plan = load_plan(plan_file(tmp_path, base=base))
    result = run_study(plan, tmp_path / "study", jobs=1)
    assert len(result.cells) == result.wanted == 4
    for cell, one in zip(plan.cells, result.cells, strict=True):
        told = simulated(tmp_path / cell.title, cell.recipe).result
        assert one.labels == dict(cell.labels)
        assert [r.accuracy for r in one.rounds] == [r.accuracy for r in told.history]
        assert [r.loss for r in one.rounds] == [r.loss for r in told.history]
        assert one.rounds[-1].bytes_up == sum(r.bytes_up for r in told.history)
        last = max(told.history[-1].epsilon.values()) if told.epsilon else None
        assert one.rounds[-1].epsilon == last
        assert one.rounds[-1].worst_accuracy == min(told.history[-1].site_accuracy.values())
        assert one.rounds[0].seconds < one.rounds[-1].seconds


def test_only_what_changed_is_run_again(tmp_path: Path) -> None:
    study = tmp_path / "study"
    run_study(load_plan(plan_file(tmp_path)), study, jobs=1)
    first = times(study)
    run_study(load_plan(plan_file(tmp_path)), study, jobs=1)
    assert times(study) == first
    changed = load_plan(plan_file(tmp_path, TWO.replace("eta = 0.1", "eta = 0.2")))
    assert len(state_of(changed, study).left) == 2
    run_study(changed, study, jobs=1)
    assert {n for n, at in times(study).items() if at != first[n]} == {
        n for n in first if n.startswith("adam")
    }
    damaged = next((study / "cells").glob("fedavg*"))
    damaged.write_text("{")
    assert len(state_of(changed, study).left) == 1


def test_a_strategys_file_counts_by_what_is_in_it(tmp_path: Path) -> None:
    file = faulty_file(tmp_path)
    path = plan_file(tmp_path, f'[[strategy]]\nlabel = "own"\nname = "{file.name}:Fine"\n'
                     '[[train]]\nlr = 5.0\n', BASE.replace('baseline = "fedavg"', ""))  # fmt: skip
    plan, study = load_plan(path), tmp_path / "study"
    assert plan.cells[0].recipe.strategy.name == f"{file}:Fine"
    assert run_study(plan, study, jobs=1).failed == {}
    assert not state_of(plan, study).left
    file.write_text(file.read_text() + "\n# changed\n")
    assert len(state_of(plan, study).left) == 2


def test_so_does_all_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "their_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "helping.py").write_text("step = 1\n")
    (package / "mine.py").write_text("from flwr.serverapp.strategy import FedAvg\n")
    monkeypatch.syspath_prepend(package.parent)
    name = "their_package.mine:FedAvg"
    plan = load_plan(plan_file(tmp_path, f'[[strategy]]\nname = "{name}"\n' + TWO))
    study = tmp_path / "study"
    run_study(plan, study, jobs=1)
    (package / "helping.py").write_text("step = 2\n")
    again = [plan.cells[at].recipe.strategy.name for at in state_of(plan, study).left]
    assert again == [name, name]


def test_on_many_cores_the_bits_are_the_same_and_a_fault_costs_one_cell(tmp_path: Path) -> None:
    file = faulty_file(tmp_path)
    faults = "".join(
        f'\n[[strategy]]\nlabel = "{name}"\nname = "{file}:{name}"\n'
        for name in ("Raising", "Dying")
    )
    base = BASE.replace("[1, 2]", "[1]")
    good = run_study(load_plan(plan_file(tmp_path / "a", base=base)), tmp_path / "one", jobs=1)
    plan = load_plan(plan_file(tmp_path / "b", faults + TWO, base))
    seen: list[tuple[int, int]] = []
    result = run_study(
        plan, tmp_path / "two", jobs=2, progress=lambda phase, d, n: seen.append((d, n))
    )
    assert by_title(result) == by_title(good)
    assert "RuntimeError: a bug in here" in result.failed["Raising, seed 1"]
    assert "process ended with code 7" in result.failed["Dying, seed 1"]
    assert result.wanted - len(result.cells) == 2
    assert seen[-1] == (8, 8)
    logs = tmp_path / "two" / "logs"
    assert "about to die" in "".join(p.read_text() for p in logs.glob("worker-*.log"))


def test_what_is_no_mistake_of_the_users_keeps_its_trace() -> None:
    told = _answer(Bench(), "{", io.StringIO())
    assert told["failed"].startswith("ValidationError")
    assert "Traceback" in told["trace"]


def test_a_failed_cell_is_tried_again_and_the_others_are_kept(tmp_path: Path) -> None:
    file = faulty_file(tmp_path)
    axes = f'\n[[strategy]]\nlabel = "bad"\nname = "{file}:Raising"\n' + TWO
    path, study = plan_file(tmp_path, axes), tmp_path / "study"
    assert set(run_study(load_plan(path), study, jobs=1).failed) == {"bad, seed 1", "bad, seed 2"}
    before = times(study)
    path = plan_file(tmp_path, axes.replace("Raising", "Fine"))
    assert run_study(load_plan(path), study, jobs=1).failed == {}
    assert {name: at for name, at in times(study).items() if name in before} == before
    assert len(times(study)) == 6


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    plan, study = load_plan(plan_file(tmp_path)), tmp_path / "study"

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "rounds" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(plan, study, jobs=1, progress=stop)
    assert len(times(study)) == 2
    before = times(study)
    assert len(run_study(plan, study, jobs=1).cells) == 4
    assert before.items() <= times(study).items()


def test_a_worker_stays_with_its_federation(tmp_path: Path) -> None:
    axes = TWO + "\n[[partition]]\nalpha = 0.1\n[[partition]]\nalpha = 1.0\n"
    plan = load_plan(plan_file(tmp_path, axes))
    schedule, held, taken = Schedule(plan.cells), ["", ""], []
    for turn in range(len(plan.cells)):
        cell = schedule.take(held[turn % 2])
        assert cell is not None
        held[turn % 2] = data_key(cell.recipe)
        taken.append((turn % 2, held[turn % 2], cell.title))
    assert schedule.take(held[0]) is None
    assert sorted(title for _, _, title in taken) == sorted(c.title for c in plan.cells)
    for worker in (0, 1):
        keys = [key for at, key, _ in taken if at == worker]
        assert sum(a != b for a, b in pairwise(keys)) == 1


def test_two_comparisons_in_one_folder_are_refused(tmp_path: Path) -> None:
    plan, study = load_plan(plan_file(tmp_path)), tmp_path / "study"
    with only_one(study), pytest.raises(CacheError, match="Another process works in"):
        run_study(plan, study, jobs=1)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    plan, study = load_plan(plan_file(tmp_path)), tmp_path / "study"
    study.mkdir()
    (study / "letter.txt").write_text("dear")
    with pytest.raises(CacheError, match="not empty, and no study"):
        run_study(plan, study, jobs=1)
    for marked, said in (
        ({"format": 0, "name": "small"}, "has the format 0; this version .* format 1"),
        ({"format": 1, "name": "large"}, "holds the study 'large', and the plan is 'small'"),
        ([1], "is damaged"),
    ):
        (study / "study.json").write_text(json.dumps(marked))
        with pytest.raises(CacheError, match=said):
            state_of(plan, study)
    assert [path.name for path in study.iterdir() if path.suffix != ".json"] == ["letter.txt"]


def test_what_cannot_be_is_found_before_anything_runs(tmp_path: Path) -> None:
    def refused(axes: str, base: str = BASE) -> Path:
        return plan_file(tmp_path, axes, base)

    study = tmp_path / "study"
    krum = '\n[[strategy]]\nname = "fedavg"\n[[strategy]]\nname = "krum"\n'
    secure = '\n[[transport]]\nlabel = "secure"\nsecure = true\n'
    with pytest.raises(StrategyError, match=r"cell 'secure, krum' cannot be: .* single updates"):
        run_study(load_plan(refused(krum + secure)), study)
    with pytest.raises(StrategyError, match=r"cell 'fedavgg' cannot be: .*Did you mean 'fedavg'"):
        run_study(load_plan(refused('\n[[strategy]]\nname = "fedavgg"\n', BASE.replace(
            'baseline = "fedavg"', ''))), study)  # fmt: skip
    ray = '\n[[transport]]\nvia = "ray"\n'
    with pytest.raises(RecipeError, match="by itself"):
        run_study(load_plan(refused(TWO + ray)), study)
    mlp = '\n[[strategy]]\nname = "fed3r"\n[[head]]\nkind = "mlp"\n'
    with pytest.raises(RecipeError, match="makes linear heads"):
        run_study(load_plan(refused(mlp, BASE.replace('baseline = "fedavg"', ""))), study)
    assert not study.exists()
    with pytest.raises(RecipeError, match="--jobs is -1"):
        run_study(load_plan(refused(TWO)), study, jobs=-1)
    many = "\n[[partition]]\nsites = 3\n[[partition]]\nsites = 90\n"
    with pytest.raises(DataError, match=r"cell 'sites 90, fedavg, seed 1' cannot be: .*too few"):
        run_study(load_plan(refused(TWO + many)), study, jobs=1)
    assert not (study / "cells").exists()


@pytest.mark.parametrize(
    "needy",
    [
        'name = "krum"\noptions = { bad = 9 }',
        'name = "median"\naround = { nnm = { bad = 2 } }',
        'name = "fedavg"\noptions = { min_train_nodes = 4 }',
    ],
)
def test_a_strategy_that_needs_more_sites_is_found_before_anything_runs(
    needy: str, tmp_path: Path
) -> None:
    base = BASE.replace('baseline = "fedavg"', "")
    plan = load_plan(plan_file(tmp_path, f"\n[[strategy]]\n{needy}\n", base))
    with pytest.raises(StrategyError, match=r"cell .* cannot be: .*\b3 (take|sites take) part"):
        run_study(plan, tmp_path / "study", jobs=1)
    assert not (tmp_path / "study").exists()


def test_a_cells_file_says_what_it_is(tmp_path: Path) -> None:
    plan, study = load_plan(plan_file(tmp_path)), tmp_path / "study"
    run_study(plan, study, jobs=1)
    kept = json.loads(cell_file(study, plan.cells[0]).read_text())
    assert kept["labels"] == {"strategy": "fedavg"}
    assert kept["seed"] == 1
    assert 'name = "fedavg"' in kept["recipe"]
    other = replace(plan.cells[0], labels=(("strategy", "fedavg/../x"),))
    assert cell_file(study, other).parent == study / "cells"


def test_with_a_pace_seconds_are_virtual_and_never_beside_real_ones(tmp_path: Path) -> None:
    axes = """
[[strategy]]
name = "fedavg"

[[strategy]]
name = "fedbuff"
pace = { buffer = 2 }
"""
    with pytest.raises(RecipeError, match="'fedbuff, seed 2' counts virtual seconds"):
        run_study(load_plan(plan_file(tmp_path, axes)), tmp_path / "study")
    base = BASE + "pace = { spread = 0.5, seconds = 100.0 }\n"
    result = run_study(load_plan(plan_file(tmp_path, axes, base)), tmp_path / "study", jobs=1)
    assert result.failed == {}
    assert result.virtual
    seconds = {f"{c.labels['strategy']} {c.seed}": c.rounds[-1].seconds for c in result.cells}
    assert all(10 < value < 2000 for value in seconds.values())
    for seed in (1, 2):  # it does not wait for the slowest site
        assert seconds[f"fedbuff {seed}"] < seconds[f"fedavg {seed}"]
