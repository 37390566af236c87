"""What every Grid has in common whose sites may still be at work when a round ends.

A training that outlasts its round is a value: it can be saved, and taken up by another process.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedtl.transport._identity import records_from_bytes, records_to_bytes, set_message_id
from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.kinds import TRAIN


@dataclass(frozen=True, slots=True)
class Work:
    """A training that a site is at.

    Attributes
    ----------
    kind : str
        Type of the message.
    content : RecordDict
        What the site was asked.
    done_at : float
        Virtual seconds at which it is done; 0 where time is real.
    answer : RecordDict, Error or None
        In virtual time, what will have come by then; None: nothing.
    message_id : str
        Of the message, where this process has sent it.
    """

    kind: str
    content: RecordDict
    done_at: float = 0.0
    answer: RecordDict | Error | None = None
    message_id: str = ""

    def asked(self, node: int) -> Message:
        """Return the message to a node."""
        message = Message(self.content, node, self.kind)
        set_message_id(message, self.message_id)
        return message


@dataclass(frozen=True, slots=True)
class InFlight:
    """The trainings that sites are at between two rounds.

    Attributes
    ----------
    now : float
        Virtual seconds since the start of the run.
    works : mapping of str to Work
        By site.
    nodes : mapping of str to int
        Under which node id each of these sites was asked.
    """

    now: float = 0.0
    works: Mapping[str, Work] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return numbers, text and arrays of bytes; what several sites were asked is there once."""
        contents = {id(work.content): work.content for work in self.works.values()}
        place = {key: at for at, key in enumerate(contents)}
        works = [
            {
                "site": site,
                "node": self.nodes[site],
                "kind": work.kind,
                "content": place[id(work.content)],
                "done_at": work.done_at,
                "answer": _plain(work.answer),
            }
            for site, work in self.works.items()
        ]
        return {"now": self.now, "contents": [_bytes(c) for c in contents.values()], "works": works}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> InFlight:
        """Read :meth:`to_plain`.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            It is something else.
        """
        contents = [records_from_bytes(body.tobytes()) for body in plain["contents"]]
        works = {
            str(told["site"]): Work(
                str(told["kind"]),
                contents[told["content"]],
                float(told["done_at"]),
                _answer(told["answer"]),
            )
            for told in plain["works"]
        }
        nodes = {str(told["site"]): int(told["node"]) for told in plain["works"]}
        return cls(float(plain["now"]), works, nodes)


def _bytes(content: RecordDict) -> np.ndarray:
    return np.frombuffer(records_to_bytes(content), np.uint8)


def _plain(answer: RecordDict | Error | None) -> dict[str, Any] | None:
    if isinstance(answer, Error):
        return {"code": answer.code, "reason": answer.reason}
    return None if answer is None else {"content": _bytes(answer)}


def _answer(plain: Mapping[str, Any] | None) -> RecordDict | Error | None:
    if plain is None:
        return None
    if "content" in plain:
        return records_from_bytes(plain["content"].tobytes())
    return Error(code=int(plain["code"]), reason=plain["reason"])


class AsynchronousGrid(WrappedGrid):
    """A Grid whose :meth:`send_and_receive` starts trainings and may end before they do.

    What it returns are the answers that came since, to whichever call started them. Called with no
    message it waits for those that are under way; other messages are answered as on any Grid.

    Attributes
    ----------
    ended : sequence of Message
        The training messages that are settled by what the last call returned, or given up.
    answers_at_work : bool
        Whether a site that is at work can be asked anything else meanwhile.
    """

    answers_at_work: bool = True

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.ended: Sequence[Message] = ()

    @property
    @abstractmethod
    def now(self) -> float:
        """Seconds, by the clock that counts here."""

    @property
    @abstractmethod
    def works(self) -> Mapping[int, Work]:
        """What every node that is at work is at."""

    @abstractmethod
    def take_up(
        self, now: float, works: Mapping[int, Work], *, timeout: float | None = None
    ) -> None:
        """Go on from what was under way, and forget what else is.

        Parameters
        ----------
        timeout : float, optional
            Seconds that nodes have to answer, from now on.
        """

    @property
    def busy(self) -> frozenset[int]:
        """Nodes that are at work."""
        return frozenset(self.works)


def asynchronous(grid: Grid) -> AsynchronousGrid | None:
    """Return the asynchronous one among a Grid and those inside it."""
    while isinstance(grid, WrappedGrid):
        if isinstance(grid, AsynchronousGrid):
            return grid
        grid = grid.inner
    return None


def trainings(messages: Iterable[Message]) -> list[Message]:
    """Return those of the messages that start a training."""
    return [m for m in messages if m.metadata.message_type.startswith(TRAIN)]
