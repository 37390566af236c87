"""Which sites take part in a federated run: waited for, and given the backbone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from flwr.serverapp import Grid

from fedtl.backbone import BackboneCard
from fedtl.errors import TransportError
from fedtl.launch.watch import Watch
from fedtl.recipe.tables import Federation
from fedtl.rounds.backbones import send_backbone
from fedtl.rounds.rollcall import Roll, Wanted, call_roll
from fedtl.transport.superlink import enrolled
from fedtl.types import PREPARING, Description

_PAUSE, _AGAIN = 1.0, 60.0
"""Seconds between two looks at who is there, and before who cannot take part is asked again."""


@dataclass
class Attendance:
    """Who takes part; call it with a round to learn who is there.

    Parameters
    ----------
    grid : Grid
        Made by Flower's deployment runtime, or one that wraps it.
    nodes_of : Grid
        The Grid that knows under which names keys were enrolled.
    weights : callable
        Returns the weights that the card names; called when a site has not got them.
    expected : int
        Sites that are enrolled; 0 where that is not known.
    """

    grid: Grid
    nodes_of: Grid
    card: BackboneCard
    weights: Callable[[], bytes]
    wanted: Wanted
    settings: Federation
    watch: Watch
    expected: int = 0
    timeout: float | None = None
    roll: Roll = field(default_factory=Roll)
    _asked: dict[int, float] = field(default_factory=dict)
    _offered: set[int] = field(default_factory=set)

    def gather(self) -> Roll:
        """Wait until enough sites can take part; those that cannot are named.

        Raises
        ------
        TransportError
            With code ``sites.missing``.
        """
        began = enough = time.monotonic()
        while True:
            here = self._look(waiting=True)
            now = time.monotonic()
            if len(here) < self.settings.least_sites:
                enough = now
                if now - began > self.settings.wait:
                    raise self._missing(len(here))
            elif (
                not self.roll.coming
                and (len(here) == self.expected or now - enough >= self.settings.patience)
            ) or now - began > self.settings.wait:
                return self.roll
            time.sleep(_PAUSE)

    def ask_again(self, wanted: Wanted) -> Roll:
        """Ask those that are there whether they take part in what is settled by now.

        Raises
        ------
        TransportError
            With code ``sites.missing``: too few do.
        """
        self.wanted = wanted
        nodes, self.roll = self.roll.names, replace(self.roll, present={})
        self._take_in(call_roll(self.grid, nodes, wanted, timeout=self.timeout))
        if len(self.roll.present) < self.settings.least_sites:
            raise self._missing(len(self.roll.present))
        return self.roll

    def __call__(self, round_: int) -> Mapping[int, str]:
        """Return the sites that are there now, by node; who came later joins."""
        here = self._look()
        if len(here) < self.settings.least_sites:
            self.gather()
            here = self._look()
        return here

    def _look(self, *, waiting: bool = False) -> dict[int, str]:
        """Ask whoever is new, and return the sites that are there and ready."""
        online = enrolled(self.nodes_of)
        self.watch.names.update({node: name for node, name in online.items() if name})
        now = time.monotonic()
        new = {
            node: name
            for node, name in online.items()
            if node not in self.roll.present
            and (node in self.roll.coming or now - self._asked.get(node, -_AGAIN) >= _AGAIN)
        }
        if new:
            self._asked.update(dict.fromkeys(new, now))
            self._take_in(call_roll(self.grid, new, self.wanted, timeout=self.timeout))
        here = {node: name for node, name in self.roll.names.items() if node in online}
        for name in set(self.roll.names.values()) - set(here.values()):
            self.watch.site(name, state="absent")
        self.watch.tell(said=self._said(len(here), len(online)) if waiting else "")
        return here

    def _take_in(self, new: Roll) -> None:
        """Add who answered, and send the backbone to those who have not got it."""
        names = {d.name for d in self.roll.present.values()}
        twice = [d.name for d in new.present.values() if d.name in names]
        left_out = {**new.left_out, **dict.fromkeys(twice, "another site has this name")}
        present = {
            **self.roll.present,
            **{node: d for node, d in new.present.items() if d.name not in twice},
        }
        self.watch.names.update({n: d.name for n, d in (present | dict(new.coming)).items()})
        coming = dict(new.coming)
        for node, code in self._send(coming).items():
            left_out[coming.pop(node).name] = f"did not take the backbone ({code})"
        for description in coming.values():
            self.watch.site(description.name, state=description.state)
        for description in new.present.values():
            self.watch.site(description.name, state="ready", left=description.epsilon_left)
        self.roll = Roll(
            dict(sorted(present.items(), key=lambda item: item[1].name)), coming, left_out
        )
        self.watch.left_out(left_out)

    def _send(self, coming: Mapping[int, Description]) -> Mapping[int, str]:
        """Send the backbone to those that do not prepare it already; return who failed, and how."""
        lacking = {
            node
            for node, told in coming.items()
            if node not in self._offered
            and not (told.state == PREPARING and told.backbone == self.wanted.backbone)
        }
        if not lacking:
            return {}
        sent = send_backbone(
            self.grid, lacking, card=self.card, weights=self.weights(), timeout=self.timeout
        )
        self._offered |= sent.complete
        return sent.failures

    def _said(self, here: int, online: int) -> str:
        coming = f", {len(self.roll.coming)} prepare their features" if self.roll.coming else ""
        of = f" of {self.expected}" if self.expected else ""
        return f"{online}{of} sites are online, {here} are ready{coming}"

    def _missing(self, here: int) -> TransportError:
        reasons = [f"{name}: {why}" for name, why in sorted(self.roll.left_out.items())]
        reasons += [f"{d.name}: {d.state}" for d in self.roll.coming.values()]
        named = f" Not ready: {'; '.join(reasons)}." if reasons else ""
        return TransportError(
            f"{here} of {self.settings.least_sites} sites are ready after "
            f"{self.settings.wait:.0f} s.{named}",
            next_step="See `fedtl server sites`, start or mend the missing ones, then resume the "
            "run.",
            code="sites.missing",
        )
