"""Counts of labels that the sites told before the first round, kept in the checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from fedtl.errors import CacheError
from fedtl.home import write_atomic
from fedtl.launch.terms import Terms
from fedtl.rounds.check import LOST
from fedtl.rounds.labels import ask_labels

_FILE = "labels.json"


@dataclass(frozen=True, slots=True)
class Labels:
    """What was told.

    Attributes
    ----------
    counts : mapping of str to list of float
        Site to noised training examples (or groups) of each class.
    failures : mapping of str to str
        Site to failure code, for those that told nothing.
    """

    counts: Mapping[str, list[float]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def spent(self) -> dict[str, dict[str, int]]:
        """Site to the releases made of it; what got lost was released all the same."""
        lost = [site for site, code in self.failures.items() if code in LOST]
        return {site: {"labels": 1} for site in (*self.counts, *lost)}


def told_labels(grid: Grid, sites: Mapping[int, str], config: ConfigRecord, terms: Terms) -> Labels:
    """Ask every site for its counts of labels, once in a run."""
    counts, failures = ask_labels(
        grid,
        sites=sites,
        config=config,
        classes=len(terms.classes),
        timeout=terms.recipe.transport.timeout,
    )
    return Labels({site: told.tolist() for site, told in counts.items()}, failures)


def save_labels(folder: Path, labels: Labels) -> None:
    """Write what was told, atomically."""
    text = json.dumps({"counts": labels.counts, "failures": labels.failures})
    write_atomic(folder / _FILE, lambda file: file.write(text.encode()))


def load_labels(folder: Path) -> Labels | None:
    """Read what was told; None if nobody was asked yet.

    Raises
    ------
    CacheError
        The file is damaged: a run that asked again could not say what it had spent.
    """
    path = folder / _FILE
    try:
        raw = json.loads(path.read_text("utf-8"))
        counts = {str(site): [float(n) for n in told] for site, told in raw["counts"].items()}
        failures = {str(site): str(code) for site, code in raw["failures"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(
            f"The counts of labels in '{path}' are damaged.",
            next_step="Delete the folder it lies in to start the run from the first round.",
        ) from error
    return Labels(counts, failures)
