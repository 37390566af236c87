"""A Grid that asks a site both questions of a round in one message."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Error, Message, RecordDict

from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.messages import EVALUATE, TRAIN
from fedtl.wire.together import joined, parted_reply, same_head


class TogetherGrid(WrappedGrid):
    """Joins a training and an evaluation message to one site that carry the same head.

    What comes back are replies to both, as if each had travelled by itself. Whatever cannot be
    joined travels by itself, in the same phase.
    """

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Join what can be joined, wait for the replies, and part them."""
        sent = list(messages)
        by_node = {(m.metadata.dst_node_id, m.metadata.message_type): m for m in sent}
        pairs: dict[int, tuple[Message, Message]] = {}
        contents: dict[tuple[int, int], RecordDict] = {}
        out: list[Message] = []
        for message in sent:
            node, kind = message.metadata.dst_node_id, message.metadata.message_type
            train, evaluate = by_node.get((node, TRAIN)), by_node.get((node, EVALUATE))
            if train is None or evaluate is None or not same_head(train, evaluate):
                out.append(message)
            elif kind == TRAIN:
                pairs[node] = train, evaluate
                key = id(train.content), id(evaluate.content)
                if key not in contents:  # one object for all sites, as strategies make it
                    contents[key] = joined(train.content, evaluate.content)
                out.append(Message(contents[key], node, TRAIN))
        replies: list[Message] = []
        for reply in self.inner.send_and_receive(out, timeout=timeout):
            pair = pairs.get(reply.metadata.src_node_id)
            if pair is None or reply.metadata.message_type != TRAIN:
                replies.append(reply)
            else:
                replies.extend(_parted(reply, *pair))
        return replies


def _parted(reply: Message, train: Message, evaluate: Message) -> list[Message]:
    if reply.has_error():
        return [Message(reply.error, reply_to=asked) for asked in (train, evaluate)]
    answers = parted_reply(reply.content)
    return [
        Message(Error(code=1, reason=told) if isinstance(told, str) else told, reply_to=asked)
        for told, asked in zip(answers, (train, evaluate), strict=True)
    ]
