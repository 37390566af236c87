"""A Grid whose sites send compressed moves; strategies see whole heads and notice nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.errors import FedtlError
from fedtl.train.heads import trained_part
from fedtl.transport.asynchronous import asynchronous
from fedtl.transport.wrappers import WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import HostRecordDict, pack, unpack
from fedtl.wire.compress import Compression, dtypes, expand
from fedtl.wire.messages import COMPRESS, TRAIN, records


class CompressedGrid(WrappedGrid):
    """Asks for compressed answers to training messages, and expands them.

    An answer that is no compressed move of the head that was sent is handed on as it is, and then
    left out by name like any other of the wrong shape.

    Parameters
    ----------
    how : Compression
        What the sites are asked for.
    """

    def __init__(self, inner: Grid, how: Compression) -> None:
        super().__init__(inner)
        self._how = how

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask, wait for the replies, and expand them."""
        sent = list(messages)
        asked = [message for message in sent if message.metadata.message_type == TRAIN]
        for message in asked:
            for config in records(message.content, ConfigRecord):
                config[COMPRESS] = self._how.to_json()
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        if (at_work := asynchronous(self.inner)) is not None:
            asked += at_work.ended  # whose heads were sent in earlier rounds
        heads = {m.metadata.dst_node_id: records(m.content, ArrayRecord)[0] for m in asked}
        return [self._expanded(reply, heads) for reply in replies]

    def _expanded(self, reply: Message, heads: Mapping[int, ArrayRecord]) -> Message:
        head = heads.get(reply.metadata.src_node_id)
        if head is None or reply.metadata.message_type != TRAIN or reply.has_error():
            return reply
        try:
            (packed,) = records(reply.content, ArrayRecord)
            (metrics,) = records(reply.content, MetricRecord)
            start = trained_part(unpack(head))
            shapes = {name: tuple(values.shape) for name, values in start.items()}
            move = expand(unpack(packed, dtypes()), self._how, shapes)
        except (FedtlError, ValueError):
            return reply
        whole = pack(_moved(start, move))
        reply.content = HostRecordDict({"arrays": whole, "metrics": metrics})
        return reply


def _moved(start: Arrays, move: Arrays) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(start[name] + move[name], np.float32) for name in start}
