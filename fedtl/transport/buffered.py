"""``buffered``: real sites, of which a round does not wait for all.

Trainings are pushed, and answers pulled until there are enough of them. The other sites stay at
work on the head they were sent; what they answer counts in a later round.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from flwr.app import Message

from fedtl.transport.asynchronous import AsynchronousGrid, Work, trainings
from fedtl.transport.superlink import FollowedGrid
from fedtl.transport.wrappers import round_of


class BufferedGrid(AsynchronousGrid):
    """Returns as soon as so many trainings are answered, whenever they were started.

    A site does one thing after the other, so who is at work is not to be asked anything else. A
    training is given up after ``timeout`` seconds, and its site is free again.

    Parameters
    ----------
    buffer : int
        Answers with content that end a wait.
    """

    answers_at_work = False

    def __init__(self, inner: FollowedGrid, *, buffer: int) -> None:
        super().__init__(inner)
        self._followed, self._buffer = inner, buffer
        self._phase = inner.phase()

    @property
    def now(self) -> float:
        """Seconds of a clock on the wall."""
        return time.monotonic()

    @property
    def works(self) -> Mapping[int, Work]:
        """What every node that is at work was asked."""
        return {
            m.metadata.dst_node_id: Work(m.metadata.message_type, m.content)
            for m in self._phase.sent.values()
        }

    def take_up(
        self, now: float, works: Mapping[int, Work], *, timeout: float | None = None
    ) -> None:
        """Ask again what was under way: sites answer from their stores, or train again.

        What is on its way already is not asked twice.
        """
        wanted = {_key(m): m for m in (work.asked(node) for node, work in works.items())}
        on_way = {_key(message): at for at, message in self._phase.sent.items()}
        self._phase.take(at for key, at in on_way.items() if key not in wanted)
        again = [message for key, message in wanted.items() if key not in on_way]
        if again:
            self._followed.send(self._phase, again, timeout=timeout)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push trainings, and pull until the buffer is full or nobody is at work any more."""
        sent = list(messages)
        trained = trainings(sent)
        if sent and not trained:
            return self.inner.send_and_receive(sent, timeout=timeout)
        if trained:
            self._followed.send(self._phase, trained, timeout=timeout)
        others = [m for m in sent if m not in trained]
        replies = list(self.inner.send_and_receive(others, timeout=timeout))
        while self._phase.open and self._answered < self._buffer:
            self._followed.follow(self._phase)
        settled = self._phase.take(self._phase.closed())
        self.ended = [asked for asked, _ in settled]
        return [*replies, *(reply for _, reply in settled if reply is not None)]

    @property
    def _answered(self) -> int:
        return sum(reply.has_content() for reply in self._phase.replies.values())


def _key(message: Message) -> tuple[int, str, int]:
    """Return what makes two messages ask the same: to whom, of what kind, in which round."""
    return message.metadata.dst_node_id, message.metadata.message_type, round_of(message)
