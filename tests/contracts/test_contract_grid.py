"""The law of every Grid: same messages, same answers, whoever carries them.

Each check of `grid_law` runs on every Grid. Flower makes its Grid itself under Ray, so there all
run inside one simulation, in a process of its own, and their outcomes are looked at afterwards.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from flwr.serverapp import Grid
from grid_law import CHECKS, SETUP, content, nodes, send
from toys import WIDTH, Toys, toy_plan, toy_release

from fedtl.apps.client import make_client_app
from fedtl.errors import TransportError
from fedtl.privacy.plan import PrivacyPlan
from fedtl.rounds import RoundRecord, Settings, State, run
from fedtl.strategies import make_strategy
from fedtl.train.counts import METRICS_NORM
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport import superlink
from fedtl.transport.buffered import BufferedGrid
from fedtl.transport.local import LocalGrid
from fedtl.transport.paced import Pace, PacedGrid
from fedtl.transport.ray import run_on_ray
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.superlink import FollowedGrid
from fedtl.transport.wrappers import DropoutGrid, MeteredGrid
from fedtl.types import Arrays
from fedtl.wire.messages import TRAIN, task_config

Story = Callable[[Grid], None]


def on_local(toys: Toys, story: Story) -> None:
    story(LocalGrid(make_client_app(toys), toys.names))


def on_stacked(toys: Toys, story: Story) -> None:
    story(StackedGrid(make_client_app(toys), toys.names, site_of=toys))


def on_metered(toys: Toys, story: Story) -> None:
    on_stacked(toys, lambda grid: story(MeteredGrid(grid)))


def on_lossless(toys: Toys, story: Story) -> None:
    names = dict(enumerate(toys.names, 1000))
    on_local(toys, lambda grid: story(DropoutGrid(grid, rate=0.0, seed=1, names=names)))


def on_paced(toys: Toys, story: Story) -> None:
    names = dict(enumerate(toys.names, 1000))
    pace = Pace(spread=1.0)
    on_stacked(toys, lambda grid: story(PacedGrid(grid, pace=pace, seed=1, names=names)))


def on_buffered(toys: Toys, story: Story) -> None:
    def waiting(grid: Grid) -> None:
        with patch.object(superlink, "_POLL", 0.0):  # in one process, answers are there at once
            story(BufferedGrid(FollowedGrid(grid), buffer=len(toys.names)))

    on_local(toys, waiting)


def on_ray(toys: Toys, story: Story) -> None:
    run_on_ray(make_client_app(toys), len(toys.names), story)


GRIDS = {
    "local": on_local,
    "stacked": on_stacked,
    "metered": on_metered,
    "lossless": on_lossless,
    "paced": on_paced,
    "buffered": on_buffered,
    "ray": on_ray,
}


TOLD = PrivacyPlan(
    1e4,
    1e-5,
    (toy_release(), toy_release(3, mechanism="metrics", clip_norm=METRICS_NORM)),
)
JOBS: dict[str, tuple[str, str, TrainTask, PrivacyPlan | None]] = {
    "poisson": ("fedavg", "linear", TrainTask(3, 4, "poisson", 12, lr=0.5), toy_plan(poisson=True)),
    "full": ("fedadam", "linear", TrainTask(3, 2, lr=0.5, momentum=0.5), toy_plan()),
    "shuffle": ("fedprox", "linear", TrainTask(3, 5, "shuffle", 8, lr=0.3, averaging=0.5), None),
    "fed3r": ("fed3r", "linear", TrainTask(1), toy_plan(mechanism="statistics")),
    "mlp": ("fedavg", "mlp", TrainTask(2, 2, lr=0.5, head="mlp"), toy_plan()),
    "told": ("fedavg", "linear", TrainTask(3, 2, lr=0.5), TOLD),
    "secure": ("fedavg", "linear", TrainTask(3, lr=0.5), toy_plan(honest_sites=3)),
}


@dataclass
class Job:
    """A run of rounds on some Grid: its head, and what each round lost."""

    head: Arrays
    records: tuple[RoundRecord, ...]


def work(grid: Grid, name: str, *, dropout: float = 0.0) -> Job:
    strategy, kind, task, plan = JOBS[name]
    sites = {node: name for name, node in nodes(grid).items()}
    head = initial_head(kind, WIDTH, 3, hidden=4, seed=2)
    if dropout:
        grid = DropoutGrid(grid, rate=dropout, seed=3, names=sites)
    if name == "secure":
        shapes = {key: values.shape for key, values in head.items()}
        grid = SecureAggregationGrid(grid, names=sites, shapes={TRAIN: shapes}, threshold=0.6)
    outcome = run(
        grid,
        make_strategy(strategy),
        sites=sites,
        start=State(0, head),
        config=task_config(task, plan, seed=9),
        settings=Settings(
            task.rounds,
            sites_per_round=0 if name == "fed3r" else 5,
            seed=5,
            metrics="noised" if plan is TOLD else "clear",
        ),
    )
    return Job(outcome.head, outcome.history)


@dataclass
class Outcomes:
    """What happened on one Grid."""

    checks: dict[str, BaseException | None] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)


def tell(outcomes: Outcomes) -> Story:
    def story(grid: Grid) -> None:
        for name in JOBS:
            outcomes.jobs[name] = work(grid, name)
        outcomes.jobs["dropouts"] = work(grid, "shuffle", dropout=0.5)
        for name, check in CHECKS.items():
            outcomes.checks[name] = None
            try:
                check(grid)
            except BaseException as error:  # raised again by the test of that name
                outcomes.checks[name] = error

    return story


def played_on(name: str) -> Outcomes:
    outcomes = Outcomes()
    GRIDS[name](replace(SETUP), tell(outcomes))
    return outcomes


def in_a_process(name: str, file: Path) -> Outcomes:
    """Ray keeps processes and threads for as long as the process that started it lives."""
    code = (
        "import pickle, sys, pathlib, test_contract_grid as t; "
        "pathlib.Path(sys.argv[2]).write_bytes(pickle.dumps(t.played_on(sys.argv[1])))"
    )
    here = Path(__file__).parent
    before = [path for path in [os.environ.get("PYTHONPATH")] if path]
    paths = os.pathsep.join([str(here), str(here.parent), *before])
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(file)],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = pickle.loads(file.read_bytes())
    assert isinstance(outcomes, Outcomes)
    return outcomes


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """Return what happened on a Grid, having played it once."""
    folder = tmp_path_factory.mktemp("played")
    known: dict[str, Outcomes] = {}

    def play(name: str) -> Outcomes:
        if name == "ray" and importlib.util.find_spec("ray") is None:
            pytest.skip("ray is not installed: pip install 'fedtl[ray]'")
        if name not in known:
            known[name] = in_a_process(name, folder / name) if name == "ray" else played_on(name)
        return known[name]

    return play


each_grid = pytest.mark.parametrize("name", GRIDS)


@each_grid
@pytest.mark.parametrize("check", CHECKS)
def test_law(played: Callable[[str], Outcomes], name: str, check: str) -> None:
    error = played(name).checks[check]
    if error is not None:
        raise error


def largest_difference(a: Arrays, b: Arrays) -> float:
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


@each_grid
@pytest.mark.parametrize("job", [*JOBS, "dropouts"])
def test_the_same_recipe_gives_the_same_head(
    played: Callable[[str], Outcomes], name: str, job: str
) -> None:
    """To the last bit in this process; worker processes may sum in another order."""
    reference, got = played("local").jobs[job].head, played(name).jobs[job].head
    assert largest_difference(got, reference) <= (1e-6 if name == "ray" else 0.0)
    assert reference.keys() == got.keys()


@each_grid
@pytest.mark.parametrize("job", [*JOBS, "dropouts"])
def test_the_same_sites_take_part_and_the_same_are_lost(
    played: Callable[[str], Outcomes], name: str, job: str
) -> None:
    reference, got = played("local").jobs[job].records, played(name).jobs[job].records
    assert [r.cohort for r in got] == [r.cohort for r in reference]
    assert [r.failures for r in got] == [r.failures for r in reference]
    assert [r.releases for r in got] == [r.releases for r in reference]


@each_grid
@pytest.mark.parametrize("job", [*JOBS, "dropouts"])
def test_the_same_results_are_told(played: Callable[[str], Outcomes], name: str, job: str) -> None:
    """In clear and with noise, which comes from the seed, the round and the site alone."""
    reference, got = played("local").jobs[job].records, played(name).jobs[job].records
    assert any(record.evaluations for record in got)
    for ours, theirs in zip(got, reference, strict=True):
        assert ours.unevaluated == theirs.unevaluated
        assert set(ours.evaluations) == set(theirs.evaluations)
        for site, result in ours.evaluations.items():
            other = theirs.evaluations[site]
            assert (result.wrong, result.right) == (other.wrong, other.right)
            assert result.losses == pytest.approx(other.losses, rel=1e-5 if name == "ray" else 0)
            assert (result.confusion is None) == (other.confusion is None)
            if result.confusion is not None:
                np.testing.assert_array_equal(result.confusion, other.confusion)
            assert result.releases == other.releases == (ours.round if job == "told" else 0)


def test_jobs_learn_lose_and_differ(played: Callable[[str], Outcomes]) -> None:
    """Equal heads would prove nothing if they were all zero, and nothing were ever lost."""
    jobs = played("local").jobs
    assert jobs["shuffle"].records[-1].accuracy > 0.9
    assert all(np.abs(v).max() > 0 for job in jobs.values() for v in job.head.values())
    assert largest_difference(jobs["shuffle"].head, jobs["dropouts"].head) > 1e-3
    lost = {code for r in jobs["dropouts"].records for code in r.failures.values()}
    assert lost >= {"reply.missing", "data.unreadable"}
    assert len({r.cohort for r in jobs["shuffle"].records}) > 1


def test_a_message_to_nobody_is_refused_by_name() -> None:
    grid = LocalGrid(make_client_app(SETUP), SETUP.names)
    with pytest.raises(TransportError, match="node 3, which does not exist"):
        send(grid, content(), [3])
