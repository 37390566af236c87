"""``superlink``: around the Grid that Flower's deployment runtime makes, for real sites.

Flower waits for replies three seconds at a time, says nothing meanwhile, and waits for a node that
was restarted until the end of time: what the node had taken in is lost with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.charter import CHARTER

OnSent = Callable[[Sequence[Message]], None]
OnReply = Callable[[Message], None]
LONGEST_WAIT = 600.0
"""Seconds to wait for the replies of a phase, unless a recipe says otherwise."""
_POLL = 0.25
_AGAIN = 0.5
"""Share of the wait after which what nobody answered is sent again; sites answer from store."""


class FollowedGrid(WrappedGrid):
    """Waits for replies with a deadline, and tells of each as it comes.

    Parameters
    ----------
    on_sent, on_reply : callable
        Called with the messages of a phase when they are on their way, and with every reply.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        on_sent: OnSent = lambda messages: None,
        on_reply: OnReply = lambda reply: None,
    ) -> None:
        super().__init__(inner)
        self._on_sent, self._on_reply = on_sent, on_reply

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies, 600 seconds unless ``timeout`` says otherwise."""
        sent = list(messages)
        if not sent:
            return []
        wait = LONGEST_WAIT if timeout is None else timeout
        started = time.monotonic()
        asked = self._push(sent)
        self._on_sent(sent)
        replies: dict[int, Message] = {}
        again = False
        while len(replies) < len(sent) and time.monotonic() - started < wait:
            if not again and time.monotonic() - started > wait * _AGAIN:
                again = True
                lost = [at for at in range(len(sent)) if at not in replies]
                copies = [_fresh(sent[at]) for at in lost]
                asked |= {i: lost[at] for i, at in self._push(copies).items()}
            for reply in self.inner.pull_messages(
                [i for i, at in asked.items() if at not in replies]
            ):
                at = asked.get(reply.metadata.reply_to_message_id)
                if at is not None and at not in replies:
                    replies[at] = reply
                    self._on_reply(reply)
            time.sleep(_POLL)
        return list(replies.values())

    def _push(self, messages: Sequence[Message]) -> dict[str, int]:
        """Push messages; return their ids, each with its place. What was not taken has none."""
        ids: list[Any] = list(self.inner.push_messages(messages))
        return {told: at for at, told in enumerate(ids) if told}


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
