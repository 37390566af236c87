"""``local``: an in-process Grid calling the real ClientApp, site after site. The reference.

Law of every Grid: each message sent gets at most one reply, a reply names its request and its
sender, a failing site costs nobody else anything, and the same messages get the same answers on
every Grid.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedtl.errors import TransportError
from fedtl.transport._identity import (
    Run,
    empty_run,
    ensure_identity,
    set_message_id,
    with_content,
)

_log = logging.getLogger("fedtl.transport")
_FIRST_NODE = 1000


class LocalGrid(Grid):
    """A Grid over named in-process sites.

    Parameters
    ----------
    app : ClientApp
        Called once per message with the site's own ``Context``, which lives as long as the Grid.
    names : sequence of str
        Site names; the ``Context`` carries them as ``node_config["site"]``.
    """

    def __init__(self, app: ClientApp, names: Sequence[str]) -> None:
        ensure_identity()
        self._app = app
        self._names = tuple(names)
        self._contexts: dict[int, Context] = {}
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self._run = empty_run()

    def set_run(self, run: Run) -> None:
        """Set the run, as Flower's runtimes do."""
        self._run = run

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids; they stand for the names in the given order."""
        return range(_FIRST_NODE, _FIRST_NODE + len(self._names))

    def context(self, node_id: int) -> Context:
        """Return the lasting context of a node, made when first asked for.

        Raises
        ------
        TransportError
            There is no such node.
        """
        if node_id not in self._contexts:
            at = node_id - _FIRST_NODE
            if not 0 <= at < len(self._names):
                raise TransportError(
                    f"A message goes to node {node_id}, which does not exist.",
                    next_step="Address the nodes that grid.get_node_ids() returns.",
                    code="node.unknown",
                )
            config: dict[str, bool | float | int | str] = {
                "site": self._names[at],
                "partition-id": at,
                "num-partitions": len(self._names),
            }
            self._contexts[node_id] = Context(
                run_id=self._run.run_id,
                node_id=node_id,
                node_config=config,
                state=RecordDict(),
                run_config={},
            )
        return self._contexts[node_id]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now and keep the replies for :meth:`pull_messages`."""
        taken = [self._take_in(message) for message in messages]
        self._replies.update({r.metadata.reply_to_message_id: r for r in self.answer(taken, None)})
        return [message.metadata.message_id for message in taken]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand out the replies to messages pushed before, each once."""
        return [self._replies.pop(m) for m in message_ids if m in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer the messages; those not begun within ``timeout`` seconds get no reply."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return self.answer([self._take_in(message) for message in messages], deadline)

    def _take_in(self, message: Message) -> Message:
        self._sent += 1
        set_message_id(message, f"message-{self._sent}")
        return message

    def answer(self, messages: Sequence[Message], deadline: float | None) -> list[Message]:
        """Answer messages in order until the deadline (``time.monotonic`` seconds)."""
        replies = []
        for message in messages:
            if deadline is not None and time.monotonic() > deadline:
                break
            replies.append(self._answer_one(message))
        return replies

    def _answer_one(self, message: Message) -> Message:
        context = self.context(message.metadata.dst_node_id)
        private = with_content(message, _own_copy(message.content))
        try:
            return self._app(private, context)
        except Exception:
            _log.exception("The ClientApp of %s failed.", context.node_config["site"])
            return Message(Error(code=1, reason="site.failed"), reply_to=message)


def _own_copy(content: RecordDict) -> RecordDict:
    """Copy the records (not the arrays): all messages of a round share one content object."""
    copy = RecordDict()
    for name, record in content.items():
        copy[name] = record.copy()
    return copy
