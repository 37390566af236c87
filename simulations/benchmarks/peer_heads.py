"""The job every peer runs on cached features, and how its end is judged.

Each site takes 3 SGD steps of 20 rows, in the order of the file, on a linear head that starts at
zero; the server averages with equal weights. Nothing is random, so every correct implementation
ends with the same head: equal ``loss`` and ``accuracy`` show that the peers did the same work.

``python peer_heads.py FILE.npz`` writes a seeded file of the usual size: 100 sites of 60 x 1,280.
"""

from __future__ import annotations

import argparse
import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CLASSES = 10
STEPS = 3
BATCH = 20
ROUNDS = 10
LEARNING_RATE = 0.05

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HeadsResult:
    """What one peer needed for the job, and what it had learned at the end.

    Parameters
    ----------
    peer : str
        Name, version and settings of the peer.
    sites, rounds : int
        Size of the job: sites that take part in every round.
    seconds : float
        From the first round's configuration to the end of the last aggregation.
    startup_seconds : float
        From the script's first line until the first round could begin; not part of ``seconds``.
    loss, accuracy : float
        Mean cross-entropy and share of right answers of the final head on all training rows.
    """

    peer: str
    sites: int
    rounds: int
    seconds: float
    startup_seconds: float
    loss: float
    accuracy: float

    def print(self) -> None:
        """Print the result as one line of JSON, the speed in client-rounds per second first."""
        speed = self.sites * self.rounds / self.seconds
        print(json.dumps({"client_rounds_per_second": round(speed, 1), **asdict(self)}), flush=True)


@functools.cache
def load(path: str) -> tuple[Floats, Labels]:
    """Read features ``x[sites, rows, dim]`` and labels ``y[sites, rows]`` once per process.

    Raises
    ------
    ValueError
        The file is not such a pair of arrays, or a site has fewer rows than the steps need.
    """
    with np.load(path, allow_pickle=False) as file:
        if not {"x", "y"} <= set(file.files):
            raise ValueError(f"'{path}' holds {file.files}, not the arrays x and y.")
        x, y = file["x"].astype(np.float32), file["y"].astype(np.int64)
    if x.ndim != 3 or y.shape != x.shape[:2] or x.shape[1] < STEPS * BATCH:
        raise ValueError(
            f"'{path}': x{list(x.shape)} and y{list(y.shape)} must be [sites, rows, dim] and "
            f"[sites, rows] with at least {STEPS * BATCH} rows."
        )
    return x, y


def judge(weight: Floats, bias: Floats, *, path: str) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy of a head ``weight[classes, dim], bias[classes]``."""
    x, y = load(path)
    rows, labels = x.reshape(-1, x.shape[2]), y.reshape(-1)
    scores = (rows @ weight.T + bias).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
    return float(losses.mean()), float((scores.argmax(axis=1) == labels).mean())


def _absolute(path: str) -> str:
    """Return the path as workers with a folder of their own must be told it."""
    return str(Path(path).resolve())


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every peer of this job takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "features", type=_absolute, help=".npz file with x[sites, rows, dim] and y[sites, rows]"
    )
    made.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    return made


def check(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Return the number of sites, or leave with the reason why the arguments cannot be used."""
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; it must be at least 1.")
    try:
        return len(load(arguments.features)[0])
    except (OSError, ValueError) as error:
        parser.error(f"the features cannot be read: {error}")


def write_features(path: Path, *, sites: int = 100, rows: int = 60, dim: int = 1280) -> None:
    """Write seeded features of ``CLASSES`` overlapping classes, non-negative as after a ReLU."""
    random = np.random.default_rng(1)
    y = random.integers(0, CLASSES, (sites, rows))
    centres = random.normal(0, 0.15, (CLASSES, dim)).astype(np.float32)
    x = centres[y] + random.standard_normal((sites, rows, dim), dtype=np.float32)
    np.savez(path, x=np.maximum(x, 0), y=y)


def main() -> None:
    """Write a file of features for a trial."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("path", type=Path, help="the .npz file to write, about 31 MB")
    write_features(made.parse_args().path)


if __name__ == "__main__":
    main()
