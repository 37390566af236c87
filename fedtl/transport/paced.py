"""Sites of different speeds in virtual time: a round need not wait for all, and nobody sleeps.

A training is carried out at once, and its answer arrives when the site would be done. With a buffer
a round ends after so many answers, and the other sites stay at work on the head they were sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedtl.rng import stream
from fedtl.transport.wrappers import WrappedGrid, round_of
from fedtl.wire.kinds import TRAIN


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast sites are, and how many a round waits for.

    Attributes
    ----------
    buffer : int
        Answers that end a round; 0 waits for every site.
    spread : float
        Standard deviation of the logarithm of the sites' speeds; a site's own trainings differ by a
        quarter of it.
    seconds : float
        Median of what a training takes, in virtual seconds.
    """

    buffer: int = 0
    spread: float = 0.0
    seconds: float = 1.0

    def duration(self, seed: int, name: str, round_: int) -> float:
        """Return the virtual seconds of a site's training in a round.

        Examples
        --------
        >>> Pace(seconds=2.0).duration(1, "site-1", 5)
        2.0
        """
        own = stream(seed, "pace", 0, name).normal()
        now = stream(seed, "pace", round_, name).normal() / 4
        return float(self.seconds * np.exp(self.spread * (own + now)))


@dataclass(frozen=True, slots=True)
class _Work:
    """A training that a site is at, and what will come of it."""

    done_at: float
    name: str
    asked: Message
    reply: Message | None


class PacedGrid(WrappedGrid):
    """Lets virtual time pass until enough sites are done.

    Parameters
    ----------
    names : mapping of int to str
        Node id to site name.
    seed : int
        The run's: speeds depend on it, on the site's name and the round.

    Attributes
    ----------
    now : float
        Virtual seconds since the start.
    ended : sequence of Message
        The training messages whose sites are done since the last call, of whichever round.
    """

    def __init__(self, inner: Grid, *, pace: Pace, seed: int, names: Mapping[int, str]) -> None:
        super().__init__(inner)
        self._pace, self._seed, self._names = pace, seed, names
        self._working: dict[int, _Work] = {}
        self.now = 0.0
        self.ended: Sequence[Message] = ()

    @property
    def busy(self) -> frozenset[int]:
        """Nodes that are at work."""
        return frozenset(self._working)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Start trainings, and return the answers of those that are done first."""
        sent = list(messages)
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        trained = [m for m in sent if m.metadata.message_type.startswith(TRAIN)]
        if not trained:
            return replies
        kinds = {m.metadata.message_type for m in trained}
        told = {r.metadata.src_node_id: r for r in replies if r.metadata.message_type in kinds}
        for message in trained:
            node = message.metadata.dst_node_id
            name = self._names.get(node, str(node))
            done_at = self.now + self._pace.duration(self._seed, name, round_of(message))
            self._working[node] = _Work(done_at, name, message, told.get(node))
        others = [r for r in replies if r.metadata.message_type not in kinds]
        return [*others, *self._wait()]

    def _wait(self) -> list[Message]:
        """Let time pass until the buffer is full, or all are done."""
        order = sorted(self._working.items(), key=lambda item: (item[1].done_at, item[1].name))
        done = order[: self._pace.buffer or len(order)]
        for node, work in done:
            del self._working[node]
            self.now = max(self.now, work.done_at)
        self.ended = [work.asked for _, work in done]
        return [work.reply for _, work in done if work.reply is not None]
