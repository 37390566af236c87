"""What a ledger says, for people: a line per data set, and a plot of spend over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import releases_of, to_json
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.report.canvas import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, axes_at, legend_above, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS, MOST_LINES = 40, 6
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)


@dataclass(frozen=True, slots=True)
class DataSetSpend:
    """What was spent on one data set of a site.

    Attributes
    ----------
    site, data_set : str
        Name and fingerprint.
    unit : str
        ``"example"`` or ``"group"``.
    units, records : int
        Distinct units and records.
    requests : int
        Charges to this very data set.
    releases : int
        Releases about its worst unit, those about other data sets with it included.
    epsilon, delta : float
        What these cost together.
    first, last : str
        Time of the first and last charge, ISO 8601 in UTC.
    event : str
        The composed event as JSON, for any accountant.
    """

    site: str
    data_set: str
    unit: str
    units: int
    records: int
    requests: int
    releases: int
    epsilon: float
    delta: float
    first: str
    last: str
    event: str


def spends_of(site: str, ledger: Ledger, delta: float) -> list[DataSetSpend]:
    """Return what was spent, one value per data set."""
    entries = ledger.entries()
    found = []
    for data in ledger.datasets():
        charges = [e for e in entries if e.dataset == data.fingerprint and e.kind == "charge"]
        event = ledger.spend(data, delta=delta)
        found.append(
            DataSetSpend(
                site=site,
                data_set=data.fingerprint,
                unit=data.unit,
                units=data.units,
                records=len(data),
                requests=len(charges),
                releases=sum(r.count for r in releases_of(event)),
                epsilon=epsilon_of(event, delta),
                delta=delta,
                first=_iso(charges[0].time),
                last=_iso(charges[-1].time),
                event=to_json(event),
            )
        )
    return found


def _iso(utc: float) -> str:
    return datetime.fromtimestamp(utc, UTC).isoformat(timespec="seconds")


def spend_over_time(ledger: Ledger, data: DataSet, delta: float) -> list[tuple[float, float]]:
    """Return time (seconds since 1970) and epsilon after charges, at most 40 of them.

    Times at which only other data sets were charged are there too: they may share records.
    """
    charges = [e for e in ledger.entries() if e.kind == "charge"]
    step = max(1, math.ceil(len(charges) / MOST_POINTS))
    chosen = [*charges[::-step][::-1]]
    return [
        (e.time, epsilon_of(ledger.spend(data, delta=delta, upto=e.number), delta)) for e in chosen
    ]


def draw_spend(lines: Mapping[str, Sequence[tuple[float, float]]], delta: float) -> str:
    """Return an SVG of spend over time; of many data sets, those that have spent most.

    Parameters
    ----------
    lines : mapping of str to sequence of (float, float)
        Label to :func:`spend_over_time`.
    """
    finite = {
        label: [(t, e) for t, e in points if math.isfinite(e)] for label, points in lines.items()
    }
    drawn = sorted((k for k, v in finite.items() if v), key=lambda k: -finite[k][-1][1])
    shown = {label: finite[label] for label in sorted(drawn[:MOST_LINES])}

    def draw(figure: Figure) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        rows = math.ceil(len(shown) / 2)
        axes = axes_at(figure, top=0.12 + 0.18 * rows)
        for (label, points), colour in zip(shown.items(), _COLOURS, strict=False):
            times = [datetime.fromtimestamp(t, UTC) for t, _ in points]
            axes.plot(
                times,  # type: ignore[arg-type]
                [epsilon for _, epsilon in points],
                drawstyle="steps-post",
                marker=".",
                color=colour,
                label=label,
            )
        locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        form = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(form)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"epsilon at delta {delta:g}")
        axes.grid(axis="y")
        if shown:
            legend_above(axes, columns=2)

    return render("ledger", draw, height=2.9, label="Privacy spent over time, by data set")
