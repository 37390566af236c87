"""Sites of different speeds in virtual time: a round need not wait for all, and nobody sleeps.

A training is carried out at once, and its answer arrives when the site would be done. With a buffer
a round ends after so many answers, and the other sites stay at work on the head they were sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedtl.rng import stream
from fedtl.transport.asynchronous import AsynchronousGrid, Work, trainings
from fedtl.transport.wrappers import round_of


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


class PacedGrid(AsynchronousGrid):
    """Lets virtual time pass until enough sites have answered.

    Parameters
    ----------
    names : mapping of int to str
        Node id to site name.
    seed : int
        The run's: speeds depend on it, on the site's name and the round.
    """

    def __init__(self, inner: Grid, *, pace: Pace, seed: int, names: Mapping[int, str]) -> None:
        super().__init__(inner)
        self._pace, self._seed, self._names = pace, seed, names
        self._working: list[tuple[int, Work]] = []
        self._now = 0.0

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    @property
    def works(self) -> Mapping[int, Work]:
        """What every node that is at work is at, with what it will answer."""
        return dict(self._working)

    def take_up(
        self, now: float, works: Mapping[int, Work], *, timeout: float | None = None
    ) -> None:
        """Go on from what was under way."""
        self._now, self._working = now, list(works.items())

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Start trainings, and return the answers of those that are done first."""
        sent = list(messages)
        trained = trainings(sent)
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        if sent and not trained:
            return replies
        kinds = {m.metadata.message_type for m in trained}
        told = {
            (r.metadata.src_node_id, r.metadata.reply_to_message_id): r
            for r in replies
            if r.metadata.message_type in kinds
        }
        for message in trained:
            node, message_id = message.metadata.dst_node_id, message.metadata.message_id
            lasts = self._pace.duration(self._seed, self._name(node), round_of(message))
            work = Work(
                message.metadata.message_type,
                message.content,
                self._now + lasts,
                _answer(told.get((node, message_id))),
                message_id,
            )
            self._working.append((node, work))
        others = [r for r in replies if r.metadata.message_type not in kinds]
        return [*others, *self._wait()]

    def _name(self, node: int) -> str:
        return self._names.get(node, str(node))

    def _wait(self) -> list[Message]:
        """Let time pass until the buffer is full of answers, or all are done."""
        ended, replies, missing = [], [], self._pace.buffer
        self._working.sort(key=lambda item: (item[1].done_at, self._name(item[0])))
        for node, work in self._working:
            self._now = max(self._now, work.done_at)
            ended.append(work.asked(node))
            if work.answer is not None:
                replies.append(Message(work.answer, reply_to=ended[-1]))
            missing -= isinstance(work.answer, RecordDict)
            if not missing and self._pace.buffer:
                break
        del self._working[: len(ended)]
        self.ended = ended
        return replies


def _answer(reply: Message | None) -> RecordDict | Error | None:
    if reply is None:
        return None
    return reply.error if reply.has_error() else reply.content
