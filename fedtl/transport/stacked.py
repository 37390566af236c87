"""``stacked``: runs a whole cohort as one tensor program, with the same bits as ``local``."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.clientapp import ClientApp

from fedtl.garbage import undisturbed
from fedtl.site.answer import SiteOf, answer_train
from fedtl.transport.local import LocalGrid
from fedtl.wire.messages import TRAIN

_log = logging.getLogger("fedtl.transport")


class StackedGrid(LocalGrid):
    """A Grid that answers the head-training messages of a round together.

    Messages it does not recognise go to the ClientApp one by one, as on ``local``; it says so once.

    Parameters
    ----------
    app : ClientApp
        For everything but head training.
    names : sequence of str
        Site names.
    site_of : callable
        The site behind a context: the same function the ClientApp was made from.
    """

    def __init__(self, app: ClientApp, names: Sequence[str], *, site_of: SiteOf) -> None:
        super().__init__(app, names)
        self._site_of = site_of
        self._said: set[str] = set()

    def answer(self, messages: Sequence[Message], deadline: float | None) -> list[Message]:
        """Answer head-training messages as one cohort, the others one by one."""
        stacked = [m for m in messages if m.metadata.message_type == TRAIN]
        others = [m for m in messages if m.metadata.message_type != TRAIN]
        for kind in {m.metadata.message_type for m in others} - self._said:
            self._said.add(kind)
            _log.debug("'%s' messages are not stacked; they run one by one.", kind)
        late = deadline is not None and time.monotonic() > deadline
        pairs = [] if late else [(m, self.context(m.metadata.dst_node_id)) for m in stacked]
        with undisturbed():
            answers = answer_train(pairs, self._site_of)
        return answers + super().answer(others, deadline)
