"""Grids around a Grid: what is measured or disturbed, nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedtl.rng import stream
from fedtl.transport._identity import Run
from fedtl.wire.arrays import count_bytes
from fedtl.wire.messages import SEALED, records


class WrappedGrid(Grid):
    """Hands every call on to the Grid inside; the base of the wrappers."""

    def __init__(self, inner: Grid) -> None:
        self.inner = inner

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        """Run information."""
        return self.inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to one node."""
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids."""
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies."""
        return self.inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies."""
        return self.inner.send_and_receive(messages, timeout=timeout)


@dataclass(slots=True)
class Traffic:
    """Bytes of arrays to and from each node, and seconds spent waiting for replies."""

    down: dict[int, int] = field(default_factory=dict)
    up: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    def take(self) -> Traffic:
        """Return what was counted so far and start again from zero."""
        counted = Traffic(self.down, self.up, self.seconds)
        self.down, self.up, self.seconds = {}, {}, 0.0
        return counted


class MeteredGrid(WrappedGrid):
    """Counts bytes per node and seconds.

    Bytes are those of arrays as they would be serialised, and of what secure aggregation adds.
    """

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.traffic = Traffic()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages, wait for the replies, and count."""
        started = time.perf_counter()
        sent = list(messages)
        sizes: dict[int, int] = {}
        for message in sent:
            key = id(message.content)  # one object for all sites, except under secure aggregation
            if key not in sizes:
                sizes[key] = content_bytes(message)
            _count(self.traffic.down, message.metadata.dst_node_id, sizes[key])
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        for reply in replies:
            _count(self.traffic.up, reply.metadata.src_node_id, content_bytes(reply))
        self.traffic.seconds += time.perf_counter() - started
        return replies


def _count(totals: dict[int, int], node: int, n_bytes: int) -> None:
    totals[node] = totals.get(node, 0) + n_bytes


def content_bytes(message: Message) -> int:
    """Return the bytes of a message that are counted."""
    if not message.has_content():
        return 0
    arrays = sum(count_bytes(record) for record in records(message.content, ArrayRecord))
    sealed = message.content.get(SEALED)
    bodies = sealed.values() if isinstance(sealed, ConfigRecord) else ()
    return arrays + sum(len(body) for body in bodies if isinstance(body, bytes))


class DropoutGrid(WrappedGrid):
    """Loses the replies of a random, seeded set of sites in each round.

    Which sites drop out depends on seed, round and site name only, so every transport loses the
    same.

    Parameters
    ----------
    rate : float
        Probability that a site's reply to a training message is lost.
    names : mapping of int to str
        Node id to site name.
    """

    def __init__(self, inner: Grid, *, rate: float, seed: int, names: Mapping[int, str]) -> None:
        super().__init__(inner)
        self._rate, self._seed, self._names = rate, seed, names

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and lose some of the replies."""
        sent = list(messages)
        round_ = next((round_of(m) for m in sent), 0)
        replies = self.inner.send_and_receive(sent, timeout=timeout)
        return [reply for reply in replies if not self._lost(reply, round_)]

    def _lost(self, reply: Message, round_: int) -> bool:
        if not reply.metadata.message_type.startswith("train"):
            return False
        name = self._names[reply.metadata.src_node_id]
        return bool(stream(self._seed, "dropout", round_, name).random() < self._rate)


def round_of(message: Message) -> int:
    """Return the round that a message says it is of; 0 if it says none."""
    for config in records(message.content, ConfigRecord):
        if isinstance(round_ := config.get("server-round"), int):
            return round_
    return 0
