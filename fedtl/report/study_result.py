"""What a study found out: one frozen value, made of its cells' rounds; all that is shown of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CellRound:
    """One round of a cell.

    Attributes
    ----------
    accuracy, loss : float or None
        Over all sites' held-out examples; None where the round was not evaluated.
    worst_site, worst_accuracy : str and float, or "" and None
        The site where the head does worst.
    bytes_down, bytes_up : int
        Bytes of arrays to and from all sites so far.
    epsilon : float or None
        Privacy spent so far by the site that has spent most; None without privacy.
    seconds : float
        Seconds of the rounds so far: on one core, or virtual ones of sites that have a pace.
    failures : int
        Updates of this round that did not arrive or could not be used.
    kept : bool
        Whether the strategy chose this round's head as the result, and not the last one's.
    """

    round: int
    accuracy: float | None
    loss: float | None
    worst_site: str
    worst_accuracy: float | None
    bytes_down: int
    bytes_up: int
    epsilon: float | None
    seconds: float
    failures: int = 0
    kept: bool = False

    @property
    def n_bytes(self) -> int:
        """Bytes to and from all sites so far."""
        return self.bytes_down + self.bytes_up


@dataclass(frozen=True, slots=True)
class CellResult:
    """One run of a study.

    Attributes
    ----------
    labels : mapping of str to str
        Axis to label.
    """

    labels: Mapping[str, str]
    seed: int
    rounds: tuple[CellRound, ...] = field(repr=False)

    @property
    def last(self) -> CellRound | None:
        """The round of the head that is the result, if it was evaluated.

        The last one, unless the strategy kept an earlier one.
        """
        told = [r for r in self.rounds if r.accuracy is not None]
        return next((r for r in told if r.kept), told[-1] if told else None)


@dataclass(frozen=True, slots=True)
class Scale:
    """A quantity that the choices on an axis turn up and down.

    Attributes
    ----------
    axis : str
        Whose labels have a place on it.
    quantity : {"alpha", "share", "epsilon"}
        What it is: concentration of labels, share of bad sites, or privacy budget.
    points : mapping of str to tuple of (str, float)
        Label to where it stands: kind of attack (or "") and value. Without an attack, a label
        stands at 0 for each kind.
    """

    axis: str
    quantity: str
    points: Mapping[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Everything that is shown of a study.

    Attributes
    ----------
    axes : mapping of str to tuple of str
        Axis to its labels; the last axis is the one that is compared.
    baseline : str
        Label of the last axis that the others are tested against.
    cells : tuple of CellResult
        Those that finished.
    wanted : int
        How many cells the plan has.
    failed : mapping of str to str
        Title of a cell to what went wrong.
    scales : tuple of Scale
        Of axes that vary a quantity.
    virtual : bool
        Whether seconds are those of simulated sites, and not of this machine.
    """

    name: str
    version: str
    created: str
    axes: Mapping[str, tuple[str, ...]]
    baseline: str
    seeds: tuple[int, ...]
    cells: tuple[CellResult, ...] = field(repr=False)
    wanted: int
    failed: Mapping[str, str] = field(default_factory=dict)
    scales: tuple[Scale, ...] = ()
    virtual: bool = False

    @property
    def compared(self) -> str:
        """The axis that is compared."""
        return list(self.axes)[-1]

    @property
    def varied(self) -> tuple[str, ...]:
        """The other axes that have more than one choice."""
        return tuple(name for name in list(self.axes)[:-1] if len(self.axes[name]) > 1)

    def groups(self) -> dict[tuple[str, ...], dict[str, list[CellResult]]]:
        """Sort the cells: by the labels of the other varied axes, then by the compared one's.

        Returns
        -------
        dict
            In the plan's order; cells of one entry differ by their seeds only, in order.
        """
        order = {
            axis: {label: at for at, label in enumerate(labels)}
            for axis, labels in self.axes.items()
        }
        ranked = sorted(
            self.cells, key=lambda c: (*(order[a][c.labels[a]] for a in self.axes), c.seed)
        )
        found: dict[tuple[str, ...], dict[str, list[CellResult]]] = {}
        for cell in ranked:
            key = tuple(cell.labels[axis] for axis in self.varied)
            found.setdefault(key, {}).setdefault(cell.labels[self.compared], []).append(cell)
        return found


def every_round(result: StudyResult) -> Iterator[tuple[CellResult, CellRound]]:
    """Yield each round of each cell."""
    for cell in result.cells:
        for round_ in cell.rounds:
            yield cell, round_
