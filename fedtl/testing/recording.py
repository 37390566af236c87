"""A run that was written down once, so that a law can play any part of it again, changed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.rounds.check import usable_replies
from fedtl.testing.bench import NAMES, cohort_grid, config_of, local_grid, play, start_head
from fedtl.transport._identity import with_content
from fedtl.transport.wrappers import WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import MECHANISMS, TRAIN, WEIGHT, records


@dataclass(frozen=True, slots=True)
class Step:
    """One round as it was.

    Attributes
    ----------
    head, after : mapping of str to NDArray
        What was sent, and what the round made of it.
    kind : str
        Type of the messages.
    replies : tuple of Message
        Usable ones, in name order; never handed out, only copies of them.
    """

    round: int
    head: Arrays
    kind: str
    replies: tuple[Message, ...]
    after: Arrays

    @property
    def nodes(self) -> list[int]:
        """Who replied."""
        return [reply.metadata.src_node_id for reply in self.replies]

    def fresh(self) -> list[Message]:
        """Return copies of the replies."""
        return [copy_of(reply) for reply in self.replies]


class _Recorder(WrappedGrid):
    """Keeps copies of training messages and their replies."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.taken: list[tuple[list[Message], list[Message]]] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass messages on, and keep those of training."""
        sent = list(messages)
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        if any(
            m.metadata.message_type in MECHANISMS and m.metadata.message_type != "evaluate"
            for m in sent
        ):
            self.taken.append((sent, [copy_of(reply) for reply in replies]))
        return replies


def recorded(strategy: Strategy) -> tuple[Step, ...]:
    """Run a strategy on the reference Grid and write every round down."""
    grid, heads = _Recorder(local_grid()), [start_head(strategy)]
    sites = dict(zip(grid.get_node_ids(), NAMES, strict=True))
    play(strategy, grid, on_round=lambda state, _: heads.append({**state.head}))
    steps = []
    for at, (sent, replies) in enumerate(grid.taken):
        usable, _ = usable_replies(sent, replies, sites, heads[at])
        kind = sent[0].metadata.message_type
        steps.append(Step(at + 1, heads[at], kind, tuple(usable), heads[at + 1]))
    return tuple(steps)


def copy_of(reply: Message) -> Message:
    """Return a message with records and arrays of its own."""
    if not reply.has_content():
        return reply
    content = RecordDict()
    for name, record in reply.content.items():
        arrays = isinstance(record, ArrayRecord)
        content[name] = _own(record) if arrays else record.copy()  # type: ignore[arg-type]
    return with_content(reply, content)


def _own(record: ArrayRecord) -> ArrayRecord:
    return pack({name: values.copy() for name, values in unpack(record).items()})


def changed(
    reply: Message, *, arrays: Arrays | None = None, weight: float | None = None
) -> Message:
    """Return a copy of a reply with other arrays, or another weight."""
    copy = copy_of(reply)
    for record in records(copy.content, ArrayRecord):
        for name, values in pack(arrays or {}).items():
            record[name] = values
    for metrics in records(copy.content, MetricRecord):
        if weight is not None:
            metrics[WEIGHT] = weight
    return copy


def echoed(reply: Message, head: Arrays) -> Message:
    """Return the reply of a site whose training changed nothing: the head, and zeros."""
    names = {name: v for r in records(reply.content, ArrayRecord) for name, v in unpack(r).items()}
    still = {name: head.get(name, np.zeros_like(values)) for name, values in names.items()}
    return changed(reply, arrays=still)


def failed(node: int, kind: str) -> Message:
    """Return what Flower hands a strategy for a site that failed."""
    return Message(
        Error(code=1, reason="data.unreadable"), reply_to=Message(RecordDict(), node, kind)
    )


def configured(strategy: Strategy, step: Step, names: Sequence[str] = NAMES) -> list[Message]:
    """Let a strategy ask the first sites for a recorded round, as the loop does."""
    config = config_of(strategy)
    with _seeded(step.round):
        grid = cohort_grid(names)
        return list(strategy.configure_train(step.round, pack(dict(step.head)), config, grid))


def aggregated(strategy: Strategy, step: Step, replies: Sequence[Message]) -> Arrays:
    """Return the head that a strategy makes of replies; None of it keeps the one that was sent."""
    with _seeded(step.round):
        arrays, _ = strategy.aggregate_train(step.round, replies)
    return step.head if arrays is None else {**step.head, **values_of(arrays)}


def values_of(arrays: ArrayRecord) -> Mapping[str, np.ndarray]:
    """Return the values of what a strategy returned."""
    return unpack(ArrayRecord(dict(arrays.items())))


def lived(strategy: Strategy, steps: Sequence[Step], at: int) -> Strategy:
    """Return a strategy after it has lived through the rounds before one."""
    for step in steps[:at]:
        configured(strategy, step)
        aggregated(strategy, step, step.fresh())
    return strategy


def training(steps: Sequence[Step]) -> int | None:
    """Return the place of the first round of gradients; None without any."""
    return next((at for at, step in enumerate(steps) if step.kind == TRAIN), None)


@contextmanager
def _seeded(round_: int) -> Iterator[None]:
    """Seed what Flower's ``sample_nodes`` draws from, as the loop does."""
    before = random.getstate()
    random.seed(f"bench/{round_}")
    try:
        yield
    finally:
        random.setstate(before)
