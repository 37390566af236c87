"""Who is at work from one round to the next: nobody, on a Grid that waits for all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedtl.rounds.check import LATE
from fedtl.transport.asynchronous import AsynchronousGrid, InFlight, asynchronous


@dataclass(frozen=True, slots=True)
class AtWork:
    """What the loop over rounds sees of a Grid that may be asynchronous.

    Attributes
    ----------
    names : dict of int to str
        Every node that was there in some round, with its site's name.
    """

    grid: AsynchronousGrid | None
    names: dict[int, str] = field(default_factory=dict)

    @classmethod
    def on(cls, grid: Grid) -> AtWork:
        """Look at a Grid and those inside it."""
        return cls(asynchronous(grid))

    def take_up(
        self, in_flight: InFlight, sites: Mapping[int, str], *, timeout: float | None
    ) -> None:
        """Go on from what sites were at; a node that is not there may come back."""
        if self.grid is None:
            return
        nodes = {**in_flight.nodes, **{name: node for node, name in sites.items()}}
        self.names.update({nodes[name]: name for name in in_flight.works})
        works = {nodes[name]: work for name, work in in_flight.works.items()}
        self.grid.take_up(in_flight.now, works, timeout=timeout)

    @property
    def in_flight(self) -> InFlight:
        """What sites are at."""
        if self.grid is None:
            return InFlight()
        works, nodes = self.grid.works, {self.names[node]: node for node in sorted(self.busy)}
        return InFlight(self.grid.now, {name: works[n] for name, n in nodes.items()}, nodes)

    @property
    def now(self) -> float:
        """Seconds, virtual ones where time is virtual."""
        return self.grid.now if self.grid else time.perf_counter()

    @property
    def busy(self) -> frozenset[int]:
        """Nodes that are at work."""
        return self.grid.busy if self.grid else frozenset()

    @property
    def silent(self) -> frozenset[int]:
        """Nodes that are not to be asked anything, because they are at work."""
        return self.busy if self.grid and not self.grid.answers_at_work else frozenset()

    @property
    def late(self) -> dict[str, str]:
        """Failure codes for a run that ends now: what these sites send will be used by nobody."""
        return {self.names[node]: LATE for node in self.busy}

    def settled(self, sent: Sequence[Message]) -> list[Message]:
        """Return the messages that the replies at hand belong to: all, or those of sites done."""
        return list(self.grid.ended if self.grid else sent)

    def cohort(self, drawn: Sequence[str], settled: Sequence[Message]) -> tuple[str, ...]:
        """Return the sites of a round: those drawn for it, or those whose training ended in it."""
        if self.grid is None:
            return tuple(drawn)
        return tuple(sorted(self.names[m.metadata.dst_node_id] for m in settled))
