"""``superlink``: around the Grid that Flower's deployment runtime makes, for real sites.

Flower waits for replies three seconds at a time, says nothing meanwhile, and waits for a node that
was restarted until the end of time: what the node had taken in is lost with it. A node that is
offline for a moment it gives up at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedtl.transport._identity import NODE_UNAVAILABLE
from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.charter import CHARTER

OnSent = Callable[[Sequence[Message]], None]
OnReply = Callable[[Message], None]
OnOffline = Callable[[int], None]
LONGEST_WAIT = 600.0
"""Seconds to wait for the replies of a phase, unless a recipe says otherwise."""
_POLL, _LOOK = 0.25, 2.0
"""Seconds between two looks for replies, and for nodes that were restarted."""
_AGAIN = 0.5
"""Share of the wait after which what nobody answered is sent again; sites answer from store."""


class FollowedGrid(WrappedGrid):
    """Waits for replies with a deadline, tells of each as it comes, and sends again what was lost.

    Parameters
    ----------
    patience : float
        Seconds that a node which went offline has to come back before it is given up.
    on_sent, on_reply : callable
        Called with the messages of a phase when they are on their way, and with every reply.
    on_offline : callable
        Called with a node that went offline.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        patience: float = 0.0,
        on_sent: OnSent = lambda messages: None,
        on_reply: OnReply = lambda reply: None,
        on_offline: OnOffline = lambda node: None,
    ) -> None:
        super().__init__(inner)
        self._patience = patience
        self._on_sent, self._on_reply, self._on_offline = on_sent, on_reply, on_offline

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies, 600 seconds unless ``timeout`` says otherwise."""
        sent = list(messages)
        if not sent:
            return []
        phase = self.phase()
        self.send(phase, sent, timeout=timeout)
        while phase.open:
            self.follow(phase)
        return list(phase.replies.values())

    def phase(self) -> Phase:
        """Return a phase in which nothing is sent yet."""
        return Phase(self.inner, self._patience)

    def send(
        self, phase: Phase, messages: Sequence[Message], *, timeout: float | None = None
    ) -> None:
        """Push messages in a phase."""
        phase.send(messages, LONGEST_WAIT if timeout is None else timeout)
        self._on_sent(messages)

    def follow(self, phase: Phase) -> None:
        """Do what is due in a phase, take in what has come, and wait a moment."""
        phase.repeat()
        for node in phase.went_offline():
            self._on_offline(node)
        for reply in phase.pull():
            self._on_reply(reply)
        time.sleep(_POLL)


@dataclass(slots=True)
class _Sent:
    """A message on its way; times are those of ``time.monotonic``."""

    message: Message
    until: float
    again: float


class Phase:
    """Messages on their way, by place, and what became of them.

    Attributes
    ----------
    replies : dict of int to Message
        What has come, by place.
    """

    def __init__(self, inner: Grid, patience: float) -> None:
        self.replies: dict[int, Message] = {}
        self._inner, self._patience = inner, patience
        self._sent: dict[int, _Sent] = {}
        self._places = count()
        self._asked: dict[str, int] = {}
        self._offline: dict[int, float] = {}
        self._told: set[int] = set()
        self._active: dict[int, str] = {}
        self._look_at = 0.0

    def send(self, messages: Sequence[Message], wait: float) -> None:
        """Push messages, to wait so many seconds for the reply of each."""
        self._look()
        now = time.monotonic()
        new = dict(zip(self._places, messages, strict=False))
        self._sent |= {at: _Sent(m, now + wait, now + wait * _AGAIN) for at, m in new.items()}
        self._push(list(new.items()))

    @property
    def sent(self) -> dict[int, Message]:
        """What was sent and not taken out, by place."""
        return {at: sent.message for at, sent in self._sent.items()}

    @property
    def open(self) -> list[int]:
        """Places of the messages whose reply may still come."""
        now, least = time.monotonic(), self._patience
        return [
            at
            for at, sent in self._sent.items()
            if at not in self.replies
            and now < sent.until
            and now - self._offline.get(at, now) <= least
        ]

    def take(self, places: Iterable[int]) -> list[tuple[Message, Message | None]]:
        """Take messages out with their replies; what comes later is of no interest."""
        taken = set(places)
        self._asked = {told: at for told, at in self._asked.items() if at not in taken}
        return [(self._sent.pop(at).message, self.replies.pop(at, None)) for at in sorted(taken)]

    def closed(self) -> list[int]:
        """Return the places of what was answered or given up."""
        still = set(self.open)
        return [at for at in self._sent if at not in still]

    def repeat(self) -> None:
        """Send again what a node lost that was started anew, and once what nobody answers."""
        now = time.monotonic()
        if now > self._look_at:
            self._look()
        late = [at for at in self.open if now > self._sent[at].again]
        for at in late:
            self._sent[at].again = float("inf")
        self._again(late)

    def _again(self, places: Iterable[int]) -> None:
        """Send some messages again, as messages of their own with ids of their own."""
        self._push([(at, _fresh(self._sent[at].message)) for at in places])

    def _push(self, messages: Sequence[tuple[int, Message]]) -> None:
        """Push messages. What was not taken has no id."""
        if not messages:
            return
        ids: list[Any] = list(self._inner.push_messages([m for _, m in messages]))
        self._asked |= {told: at for told, (at, _) in zip(ids, messages, strict=False) if told}

    def _look(self) -> None:
        """Note who is offline, and send again what was lost with a node started anew."""
        self._look_at = time.monotonic() + _LOOK
        active = _activations(self._inner)
        if active is None:
            return
        node_of = {at: self._sent[at].message.metadata.dst_node_id for at in self.open}
        now, before = time.monotonic(), self._active
        offline = {at for at, node in node_of.items() if node not in active}
        self._offline = {
            **{at: t for at, t in self._offline.items() if at in self._sent and at not in node_of},
            **{at: self._offline.get(at, now) for at in offline},
        }
        self._active = {**before, **active}
        new = {node for node, since in active.items() if before.get(node, since) != since}
        self._again(at for at, node in node_of.items() if node in new)

    def pull(self) -> list[Message]:
        """Take in the replies that have come.

        SuperLink makes some up: for nodes that are offline, which it goes on doing until they are
        back, and for what it has lost, which is sent again.
        """
        came, lost = [], []
        waiting = {told for told, at in self._asked.items() if at not in self.replies}
        for reply in self._inner.pull_messages(waiting):
            told = reply.metadata.reply_to_message_id
            at = self._asked.get(told)
            if at is None or at in self.replies:
                continue
            if reply.metadata.src_node_id == self._sent[at].message.metadata.dst_node_id:
                self.replies[at] = reply
                came.append(reply)
            elif reply.error.code != NODE_UNAVAILABLE:
                lost.append(at)
                del self._asked[told]
        self._again(lost)
        return came

    def went_offline(self) -> list[int]:
        """Nodes that are offline now, each told once while it is."""
        new = set(self._offline) - self._told
        self._told = set(self._offline)
        return [self._sent[at].message.metadata.dst_node_id for at in new if at in self._sent]


def _activations(grid: Grid) -> dict[int, str] | None:
    """Return since when each node has been online; None where the runtime does not know."""
    told = getattr(grid, "get_nodes", None)
    return None if told is None else {node.node_id: node.last_activated_at for node in told()}


def _fresh(message: Message) -> Message:
    """Return a message of its own to the same node, with an id of its own."""
    metadata = message.metadata
    return Message(message.content, metadata.dst_node_id, metadata.message_type)


class CharteredGrid(WrappedGrid):
    """Sends the coordinator's charter with every message."""

    def __init__(self, inner: Grid, charter: ConfigRecord) -> None:
        super().__init__(inner)
        self._charter = charter

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Add the charter, push messages and wait for the replies."""
        sent = list(messages)
        for message in sent:
            message.content.setdefault(CHARTER, self._charter)
        return self.inner.send_and_receive(sent, timeout=timeout)


def enrolled(grid: Grid) -> Mapping[int, str]:
    """Return the nodes that are there, with the names that their keys were enrolled under.

    Empty names where keys have none, or where the runtime knows of no keys.
    """
    told = getattr(grid, "get_nodes", None)
    if told is None:
        return dict.fromkeys(grid.get_node_ids(), "")
    return {node.node_id: node.name for node in told()}
