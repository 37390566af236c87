"""A Grid around a Grid whose server learns sums only: SecAgg+ over Flower's messages.

A strategy that needs no more than the (weighted) mean or the sum of the updates runs on it
unchanged: every site whose vector arrived seems to have sent the mean. What is protected, from
whom, and what is not, stands in :mod:`fedtl.privacy.secagg`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedtl.errors import FedtlError, PrivacyError, TransportError
from fedtl.privacy.plan import PrivacyPlan
from fedtl.privacy.secagg import Server, Session, decode
from fedtl.privacy.secagg.masks import Words
from fedtl.transport._identity import records_to_bytes, with_content
from fedtl.transport.journal import Journal
from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.arrays import HostRecordDict, pack
from fedtl.wire.messages import ADDITIVE, RELEASES, WEIGHT, read_request, records
from fedtl.wire.sealed import (
    CONFIRM,
    KEYS,
    REVEAL,
    SHARES,
    read_masked,
    read_stage,
    sealed_content,
    stage_content,
)

THRESHOLD = 2 / 3
LARGEST_VALUE = 2.0**12
"""Bound of a head's entries; heads on features of unit length stay far below."""
LARGEST_WEIGHT = 2.0**20
"""Bound of the examples of a site, where they are its weight."""

Read = TypeVar("Read")
Shapes = Mapping[str, tuple[int, ...]]


class SecureAggregationGrid(WrappedGrid):
    """Carries training and statistics messages as one session of secure aggregation each.

    Five phases of messages in place of one. Sites may be lost in any of them as long as the
    threshold holds; below it the round ends with nothing revealed. All other messages pass through.

    Parameters
    ----------
    inner : Grid
        Any Grid.
    names : mapping of int to str
        Node id to site name; may grow from round to round.
    threshold : float
        Share of the sites asked, above one half, that must stay to the end.
    shapes : mapping of str to mapping of str to tuple of int
        By type of the messages that are secured, the shapes of the arrays they answer.
    journal : Journal, optional
        Where a session is kept, so that another process can take it up.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        names: Mapping[int, str],
        shapes: Mapping[str, Shapes],
        threshold: float = THRESHOLD,
        journal: Journal | None = None,
    ) -> None:
        super().__init__(inner)
        self.journal = journal
        self._names = names
        self._shapes = dict(shapes)
        self._threshold = threshold
        self._number = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages that need no secure aggregation; refuse the others."""
        sent = list(messages)
        if any(m.metadata.message_type in self._shapes for m in sent):
            raise TransportError(
                "Secure aggregation answers a cohort together; training cannot be pushed alone.",
                next_step="Use send_and_receive, or set transport.secure = false.",
                code="secagg.push",
            )
        return super().push_messages(sent)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies, those to training hidden in their mean.

        Raises
        ------
        TransportError
            With a code ``secagg.*``: too few sites take part or stay; nothing was revealed.
        """
        sent = list(messages)
        kinds = {m.metadata.message_type for m in sent}
        if not kinds & set(self._shapes):
            return self.inner.send_and_receive(sent, timeout=timeout)
        if len(kinds) > 1:
            raise TransportError(
                f"Messages of the types {sorted(kinds)} cannot be one sum.",
                next_step="Let configure_train return messages of one type.",
                code="secagg.mixed",
            )
        try:
            return _Run(self, sent, kinds.pop(), timeout).replies()
        except PrivacyError as error:
            raise TransportError(
                f"Secure aggregation ended without a result: {error.problem}",
                next_step=error.next_step or "Run again when more sites are up.",
                code=error.code,
            ) from error

    def session(self, messages: Sequence[Message], kind: str) -> Session:
        """Return a new session for a round's messages; its bound follows from the plan."""
        request = read_request(messages[0].content)
        self._number = max(self._number + 1, time.time_ns())
        return Session(
            run=str(self.inner.run.run_id),
            round=request.round,
            number=self._number,
            invited=len(messages),
            threshold=self._threshold,
            bound=bound_of(request.plan, kind),
            additive=kind in ADDITIVE,
        )

    def shapes(self, kind: str) -> Shapes:
        """Return the shapes of what a type of message answers."""
        return self._shapes[kind]

    def name_of(self, node: int) -> str:
        """Return a node's site; unknown nodes are nobody."""
        return self._names.get(node, "")


def bound_of(plan: PrivacyPlan | None, kind: str) -> float:
    """Return the largest absolute value of an entry of a site's vector.

    Sums are at most R² times the number of examples; weights are 1 under a plan.
    """
    if kind in ADDITIVE:
        clip = plan.release(ADDITIVE[kind]).clip_norm if plan else 1.0
        return LARGEST_WEIGHT * max(clip, 1.0) ** 2
    return LARGEST_VALUE * (1.0 if plan else LARGEST_WEIGHT)


class _Run:
    """One session, from the messages of a strategy to the replies that it sees."""

    def __init__(
        self,
        grid: SecureAggregationGrid,
        messages: Sequence[Message],
        kind: str,
        timeout: float | None,
    ) -> None:
        self._grid, self._kind, self._timeout = grid, kind, timeout
        self._asked = {grid.name_of(m.metadata.dst_node_id): m for m in messages}
        self._nodes = {name: m.metadata.dst_node_id for name, m in self._asked.items()}
        self._stage_now = KEYS
        self._session = self._begun(messages)
        self._server = Server(self._session)
        self._failed: dict[str, Message] = {}

    def _begun(self, messages: Sequence[Message]) -> Session:
        """Return a new session, or the one that was cut while it asked for the same."""
        new, journal = self._grid.session(messages, self._kind), self._grid.journal
        if journal is None:
            return new
        asked = hashlib.sha256(f"{self._kind} {sorted(self._asked)} ".encode())
        asked.update(records_to_bytes(messages[0].content))
        return Session.from_bytes(journal.session(asked.hexdigest(), new.to_bytes))

    def replies(self) -> list[Message]:
        """Go through the stages; return the mean for every survivor, and the others' failures."""
        try:
            return self._replies()
        except PrivacyError:  # too few answered the last stage
            if self._grid.journal is not None:
                masked = self._stage_now not in (KEYS, SHARES)
                self._grid.journal.failed(self._stage_now, masked=masked)
            raise

    def _replies(self) -> list[Message]:
        session = self._session.to_bytes()
        keys = self._stage(KEYS, dict.fromkeys(self._asked, session))
        roster = self._server.roster(keys)
        joined = [name for name in keys if name not in self._server.refused]
        boxes = self._server.boxes(self._stage(SHARES, dict.fromkeys(joined, roster)))
        masked, vectors = self._masked(session, boxes)
        survivors = self._server.collect(vectors)
        alive = self._server.survivors
        signed = self._server.signatures(self._stage(CONFIRM, dict.fromkeys(alive, survivors)))
        total = self._server.total(self._stage(REVEAL, signed))
        arrays, weight = decode(total, self._grid.shapes(self._kind), self._session)
        n = len(alive)
        if self._session.additive:
            arrays = {name: values / n for name, values in arrays.items()}
        else:
            arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
        shared = pack(arrays)
        return [
            *(_with_mean(masked[name], shared, weight / n) for name in alive),
            *(self._failure(name) for name in self._asked if name not in alive),
        ]

    def _stage(self, kind: str, bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        """Send every site its message of a stage; return what came back, by name."""
        contents: dict[bytes, RecordDict] = {}
        for body in bodies.values():
            contents.setdefault(body, stage_content(body))
        sent = {name: contents[body] for name, body in bodies.items()}
        return self._read(self._send(kind, sent), lambda reply: read_stage(reply.content))

    def _masked(
        self, session: bytes, boxes: Mapping[str, bytes]
    ) -> tuple[dict[str, Message], dict[str, Words]]:
        sent = {n: sealed_content(self._asked[n].content, session, b) for n, b in boxes.items()}
        replies = self._send(self._kind, sent)
        return replies, self._read(replies, read_masked)

    def _send(self, kind: str, contents: Mapping[str, RecordDict]) -> dict[str, Message]:
        """Send one message to each site; return the replies by name, at most one for each.

        What the journal has of this stage is not asked for again.
        """
        self._stage_now, journal = kind, self._grid.journal
        asked = {n: Message(c, self._nodes[n], kind) for n, c in contents.items()}
        if journal is not None and (kept := journal.answers(kind)) is not None:
            return {n: _reply(asked[n], told) for n, told in kept.items() if n in asked}
        replies: dict[str, Message] = {}
        for reply in self._grid.inner.send_and_receive(list(asked.values()), timeout=self._timeout):
            name = self._grid.name_of(reply.metadata.src_node_id)
            if name in contents:
                replies.setdefault(name, reply)
        if journal is not None:
            journal.keep(kind, {name: _told(reply) for name, reply in replies.items()})
        return replies

    def _read(
        self, replies: Mapping[str, Message], read: Callable[[Message], Read]
    ) -> dict[str, Read]:
        told: dict[str, Read] = {}
        for name, reply in replies.items():
            if reply.has_error():
                self._failed[name] = reply
                continue
            try:
                told[name] = read(reply)
            except FedtlError as error:
                self._server.refused[name] = error.code
        return told

    def _failure(self, name: str) -> Message:
        """Return a lost site's failure, with its own code where it gave one."""
        asked = self._asked[name]
        if name in self._failed:
            reason = self._failed[name].error.reason
        else:
            reason = self._server.refused.get(name, "reply.missing")
        return Message(Error(code=1, reason=reason), reply_to=asked)


def _told(reply: Message) -> RecordDict | str:
    """Return a reply's records, or its failure code."""
    return reply.error.reason or "site.failed" if reply.has_error() else reply.content


def _reply(asked: Message, told: RecordDict | str) -> Message:
    """Return the reply that was given before."""
    answer = Error(code=1, reason=told) if isinstance(told, str) else told
    return Message(answer, reply_to=asked)


def _with_mean(masked: Message, shared: ArrayRecord, weight: float) -> Message:
    """Return a survivor's reply with the mean in place of its masked vector."""
    releases = next((m.get(RELEASES) for m in records(masked.content, MetricRecord)), 0)
    told = MetricRecord({WEIGHT: weight, RELEASES: releases if isinstance(releases, int) else 0})
    return with_content(masked, HostRecordDict({"arrays": shared, "metrics": told}))
