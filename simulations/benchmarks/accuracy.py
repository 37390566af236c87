"""Accuracy by recipe, with three seeds and their spread.

    python simulations/benchmarks/accuracy.py [--only digits|fashion|private] [--seeds 1 2 3]

Prints a table and writes ``results/accuracy.md``. Fashion-MNIST needs Debian's package
``dataset-fashion-mnist``, and a few minutes for its features the first time. ``private`` takes
about half an hour on two cores: every plan with 20, 40 and 100 rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
FASHION = HERE.parent / "fashion-mnist.toml"
PRIVATE = HERE.parent / "fashion-mnist-private.toml"
DISTRIBUTED = HERE.parent / "digits-distributed.toml"
SITE: dict[str, Any] = {"privacy.model": "site", "transport.secure": False}
AIMS = {("distributed", 1): 89.5, ("distributed", 3): 90.5, ("site", 1): 86, ("site", 3): 88.5}
"""Plan and epsilon to the accuracy on Fashion-MNIST to reach, in per cent."""
ROUNDS = (20, 40, 100)
SKEWS: dict[str, dict[str, Any]] = {
    "Dirichlet 0.01": {"partition.kind": "dirichlet", "partition.alpha": 0.01},
    "Dirichlet 0.1": {"partition.kind": "dirichlet", "partition.alpha": 0.1},
    "Dirichlet 1": {"partition.kind": "dirichlet", "partition.alpha": 1.0},
    "iid": {"partition.kind": "iid"},
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: accuracies in per cent, one per seed."""

    what: str
    accuracies: tuple[float, ...]
    aim: str
    met: bool

    @property
    def measured(self) -> str:
        """Mean and spread (standard deviation) over the seeds."""
        spread = statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0
        return f"{statistics.mean(self.accuracies):.2f} ± {spread:.2f} %"


def accuracy(recipe: Path | None, **overrides: Any) -> tuple[float, float | None]:
    """Run a recipe; return the accuracy in per cent, and the same run's without privacy."""
    from fedtl.launch.simulate import simulate
    from fedtl.recipe import load_recipe

    settings = {"compare.local_only": False, "evaluate_every": 0, **overrides}
    with tempfile.TemporaryDirectory() as folder:
        finished = simulate(load_recipe(recipe, settings), Path(folder) / "run", html=False)
    result = finished.result
    without = result.accuracy_without_privacy
    return 100 * (result.accuracy or 0.0), None if without is None else 100 * without


def digits(seeds: list[int]) -> Iterator[Row]:
    """Digits default, with and without privacy: the linear head and an MLP."""
    for kind, aims in (("linear", (85, 93)), ("mlp", (80, 90))):
        pairs = [accuracy(None, seed=seed, **{"head.kind": kind}) for seed in seeds]
        private = tuple(a for a, _ in pairs)
        without = tuple(b or 0.0 for _, b in pairs)
        yield _row(f"digits, 5 sites, {kind} head, epsilon 8", private, at_least=aims[0])
        yield _row(f"digits, 5 sites, {kind} head, without privacy", without, at_least=aims[1])


def fashion(seeds: list[int]) -> Iterator[Row]:
    """Fashion-MNIST at ten sites without privacy, and FED3R under every skew."""
    plain = tuple(accuracy(FASHION, seed=seed)[0] for seed in seeds)
    yield _row("Fashion-MNIST, 10 sites, without privacy", plain, at_least=91)
    first: tuple[float, ...] | None = None
    for skew, overrides in SKEWS.items():
        each = tuple(
            accuracy(FASHION, seed=seed, **{"strategy.name": "fed3r"}, **overrides)[0]
            for seed in seeds
        )
        first = first or each
        yield Row(f"Fashion-MNIST, FED3R, {skew}", each, "identical", each == first)


def private(seeds: list[int]) -> Iterator[Row]:
    """Noise shared out over sites, and every site private by itself, at a price of rounds."""
    same = {"compare.without_privacy": False}
    digits_found = tuple(accuracy(DISTRIBUTED, seed=seed, **same)[0] for seed in seeds)
    yield _row("digits, distributed noise, epsilon 8", digits_found, at_least=88)
    for (model, epsilon), aim in AIMS.items():
        for rounds in ROUNDS:
            changes = {**same, "privacy.epsilon": epsilon, "train.rounds": rounds}
            found = tuple(
                accuracy(PRIVATE, seed=seed, **changes, **(SITE if model == "site" else {}))[0]
                for seed in seeds
            )
            what = f"Fashion-MNIST, {model}, epsilon {epsilon}, {rounds} rounds"
            yield _row(what, found, at_least=aim)


def _row(what: str, accuracies: tuple[float, ...], *, at_least: float) -> Row:
    return Row(what, accuracies, f"at least {at_least} %", statistics.mean(accuracies) >= at_least)


PARTS: dict[str, Callable[[list[int]], Iterator[Row]]] = {
    "digits": digits,
    "fashion": fashion,
    "private": private,
}


def markdown(rows: list[Row]) -> str:
    """Return the table as Markdown."""
    lines = ["| what | accuracy | aim | met |", "|---|--:|---|---|"]
    lines += [f"| {r.what} | {r.measured} | {r.aim} | {'yes' if r.met else 'no'} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=sorted(PARTS), help="one part; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the table")
    options = parser.parse_args()
    table = Table("what", "accuracy", "aim", "met")
    rows: list[Row] = []
    for name in [options.only] if options.only else PARTS:
        for row in PARTS[name](options.seeds):
            rows.append(row)
            table.add_row(row.what, row.measured, row.aim, "yes" if row.met else "no")
            print(f"{row.what}: {row.measured}", flush=True)
    Console().print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "accuracy.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
