"""Small studies: a plan on real pictures, a strategy file with faults, and invented results."""

from __future__ import annotations

import math
from pathlib import Path

from fedtl.report.study_result import CellResult, CellRound, Scale, StudyResult

BASE = """
name = "small"
seeds = [1, 2]
baseline = "fedavg"

[base]
data = { source = "digits", limit = 120 }
partition = { kind = "dirichlet", sites = 3 }
backbone = { image_size = 32, taps = "final" }
train = { rounds = 2, local_steps = 2 }
privacy = { enabled = false }
compare = { without_privacy = false, local_only = false }
"""
TWO = """
[[strategy]]
name = "fedavg"

[[strategy]]
label = "adam"
name = "fedadam"
options = { eta = 0.1 }
"""

FAULTS = '''
"""FedAvg with faults."""
import os

from flwr.serverapp.strategy import FedAvg


class Raising(FedAvg):
    def aggregate_train(self, server_round, replies):
        raise RuntimeError("a bug in here")


class Dying(FedAvg):
    def aggregate_train(self, server_round, replies):
        print("about to die")
        os._exit(7)


class Fine(FedAvg):
    pass
'''


def plan_file(folder: Path, axes: str = TWO, base: str = BASE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.toml"
    path.write_text(base + axes, "utf-8")
    return path


def faulty_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "faults.py"
    path.write_text(FAULTS, "utf-8")
    return path


def invented(
    *,
    labels: tuple[str, ...] = ("fedavg", "fedadam", "fed3r"),
    partitions: tuple[float, ...] = (0.1, 1.0),
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5),
    rounds: int = 6,
    private: bool = False,
    extra: dict[str, tuple[str, ...]] | None = None,
) -> StudyResult:
    """Return a result whose numbers follow from labels and seeds; the last label is one-shot."""
    axes = {
        "partition": tuple(f"alpha {alpha:g}" for alpha in partitions),
        **(extra or {}),
        "strategy": labels,
    }
    cells = [
        CellResult(
            {
                "partition": f"alpha {alpha:g}",
                **{name: label for name, label in zip(extra or {}, more, strict=True)},
                "strategy": label,
            },
            seed,
            tuple(
                _round(number, at, alpha, seed, private)
                for number in range(1, (1 if at == 2 else rounds) + 1)
            ),
        )
        for alpha in partitions
        for more in _products(tuple((extra or {}).values()))
        for at, label in enumerate(labels)
        for seed in seeds
    ]
    return StudyResult(
        name="invented",
        version="0",
        created="2026-01-01T00:00:00+00:00",
        axes=axes,
        baseline=labels[0],
        seeds=seeds,
        cells=tuple(cells),
        wanted=len(cells),
        scales=(
            Scale(
                "partition",
                "alpha",
                {f"alpha {alpha:g}": (("", alpha),) for alpha in partitions},
            ),
        )
        if len(partitions) > 1
        else (),
    )


def _products(choices: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for options in choices:
        found = [(*before, option) for before in found for option in options]
    return found


def _round(number: int, at: int, alpha: float, seed: int, private: bool) -> CellRound:
    best = 0.9 + 0.02 * at + 0.01 * math.log10(alpha)
    accuracy = best * (1 - math.exp(-number)) + 0.004 * math.sin(7 * seed + 3 * at)
    return CellRound(
        round=number,
        accuracy=accuracy,
        loss=1 - accuracy,
        worst_site=f"site-{seed}",
        worst_accuracy=accuracy - 0.1,
        bytes_down=1000 * number * (1 + at),
        bytes_up=500 * number * (1 + at),
        epsilon=0.5 * number if private else None,
        seconds=0.1 * number,
    )
