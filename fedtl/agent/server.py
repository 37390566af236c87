"""The agent's process: a gRPC service on a unix socket, around the one site.

Messages are answered by the very functions that answer in a simulation, one at a time; what a site
remembers between messages of a run stays here, not with the ClientApp.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from flwr.app import Context, Message, RecordDict
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedtl import __version__
from fedtl.agent.agent_pb2 import Answer, Nothing, Piece, State, Task
from fedtl.agent.calls import CALLS, IN_PIECES, MOST_BYTES, OPTIONS, SERVICE
from fedtl.agent.client import TOO_LARGE
from fedtl.agent.place import make_room
from fedtl.agent.served import Served, Unchanging
from fedtl.apps.client import make_client_app
from fedtl.errors import CacheError
from fedtl.rounds.check import failure_code
from fedtl.site.cohort import failure_of
from fedtl.site.site import Site
from fedtl.transport._identity import ensure_identity, records_from_bytes, records_to_bytes
from fedtl.types import READY
from fedtl.wire.backbone import BACKBONE, have_content, read_backbone
from fedtl.wire.charter import read_charter
from fedtl.wire.messages import DESCRIBE, description_reply

_log = logging.getLogger("fedtl.agent")
_NODE, _WAITING, _RUNS = 1, 32, 64
_LONGEST_KIND = 60


@dataclass(frozen=True, slots=True)
class Answered:
    """One message, for the site's log: nothing about data.

    Attributes
    ----------
    time : float
        When the answer was there, seconds since 1970.
    type : str
        Of the message, as its sender calls it.
    run : int
        Flower's run id.
    code : str
        Failure code; empty if there was none.
    seconds : float
        From its arrival to the answer.
    """

    time: float
    type: str
    run: int
    code: str
    seconds: float


def _unheard(answered: Answered) -> None:
    """Log nothing."""


class Agent:
    """Answers for one site.

    Parameters
    ----------
    served : Served
        The site, with its policy, its ledger and its data.
    log : callable
        Is told of every answer.
    """

    def __init__(self, served: Served, log: Callable[[Answered], None] = _unheard) -> None:
        ensure_identity()
        self._served, self._log = served, log
        self._app = make_client_app(lambda context: served.site())
        self._contexts: dict[str, Context] = {}
        self._counting = threading.Lock()
        self._started = time.monotonic()
        self._state = State(site=served.name, version=__version__)

    def answer(self, call: str, task: Task) -> Answer:
        """Answer one message; whatever goes wrong is a code."""
        began = time.monotonic()
        answer = self._checked(call, task)
        with self._counting:
            if answer.failure:
                self._state.refused += 1
            else:
                self._state.answered += 1
        seconds, kind = round(time.monotonic() - began, 4), task.kind[:_LONGEST_KIND]
        self._log(Answered(round(time.time(), 3), kind, task.run, answer.failure, seconds))
        return answer

    def refuse(self, kind: str, run: int, code: str) -> Answer:
        """Answer a message that is not even read."""
        with self._counting:
            self._state.refused += 1
        self._log(Answered(round(time.time(), 3), kind[:_LONGEST_KIND], run, code, 0.0))
        return Answer(failure=code)

    def _checked(self, call: str, task: Task) -> Answer:
        try:
            if task.kind not in CALLS[call]:
                raise ValueError(f"{call} does not accept '{task.kind[:_LONGEST_KIND]}'")
            content = records_from_bytes(task.content)
        except ValueError as error:
            _log.warning("A message was refused: %s.", error)
            return Answer(failure="message.invalid")
        with self._waiting(), self._served.turn:
            self._state.busy = task.kind
            try:
                return self._answer(task, content)
            finally:
                self._state.busy = ""

    def _answer(self, task: Task, content: RecordDict) -> Answer:
        try:
            reply = self._reply(Message(content, _NODE, task.kind), task.run)
        except Exception as error:
            return Answer(failure=failure_of(error, self._served.name).code)
        if reply.has_error():
            return Answer(failure=failure_code(reply))
        return Answer(content=records_to_bytes(reply.content))

    def _reply(self, message: Message, run: int) -> Message:
        """Ask the site; before it is ready it can be described and be sent a backbone."""
        kind, served = message.metadata.message_type, self._served
        charter = read_charter(message.content)
        if kind == BACKBONE:
            have = served.receive(read_backbone(message.content), charter)
            return Message(have_content(have), reply_to=message)
        if kind == DESCRIBE and (told := served.describe()).state != READY:
            return description_reply(message, told)
        # a run that is resumed is another one to Flower
        name = f"{charter.coordinator} {charter.run}" if charter else str(run)
        return self._app(message, self._context(name, run))

    def _context(self, name: str, run: int) -> Context:
        """Return what the site remembers of a run; of the oldest runs it forgets."""
        while name not in self._contexts and len(self._contexts) >= _RUNS:
            self._contexts.pop(next(iter(self._contexts)))
        return self._contexts.setdefault(
            name,
            Context(run_id=run, node_id=_NODE, node_config={}, state=RecordDict(), run_config={}),
        )

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        with self._counting:
            self._state.waiting += 1
        try:
            yield
        finally:
            with self._counting:
                self._state.waiting -= 1

    def status(self) -> State:
        """Return what the agent is doing; never waits for a turn."""
        with self._counting:
            state = State()
            state.CopyFrom(self._state)
        state.waiting -= 1 if state.busy else 0
        state.uptime_seconds = time.monotonic() - self._started
        stage = self._served.stage()
        for name in ("state", "phase", "done", "total", "backbone", "architecture"):
            setattr(state, name, getattr(stage, name))
        return state


@contextmanager
def serving(
    site: Site | Served,
    socket: Path,
    *,
    mode: int = 0o600,
    log: Callable[[Answered], None] = _unheard,
) -> Iterator[Agent]:
    """Serve a site on a unix socket until the block is left; the socket file goes with it.

    Parameters
    ----------
    socket : Path
        In a folder that exists; only who may write to it can ask.
    mode : int
        The socket's permissions, from the first moment.
    log : callable
        Is told of every answer.

    Raises
    ------
    TransportError
        Another agent answers there, or the path is too long for a socket.
    CacheError
        Something that is no socket lies there, or the folder cannot be written.
    """
    make_room(socket)
    agent = Agent(Unchanging(site) if isinstance(site, Site) else site, log)
    workers = ThreadPoolExecutor(_WAITING, thread_name_prefix="fedtl-agent")
    server = grpc.server(workers, options=OPTIONS)
    server.add_generic_rpc_handlers((_handlers(agent),))
    healthy = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    before = os.umask(0o777 & ~mode)
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise CacheError(
            f"The socket '{socket}' cannot be made.",
            next_step="Name a folder that exists and that you may write to.",
            code="agent.socket",
        ) from error
    finally:
        os.umask(before)
    server.start()
    healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield agent
    finally:
        healthy.enter_graceful_shutdown()
        server.stop(grace=10).wait()
        workers.shutdown()
        socket.unlink(missing_ok=True)


def _handlers(agent: Agent) -> Any:
    def answer(call: str, task: Task, context: Any) -> Answer:
        return agent.answer(call, task)

    def joined(call: str, pieces: Iterator[Piece], context: Any) -> Answer:
        return _joined(agent, call, pieces)

    def status(nothing: Nothing, context: Any) -> State:
        return agent.status()

    def method(call: Callable[..., Any], asked: Any, told: Any, *, cut: bool = False) -> Any:
        make = grpc.stream_unary_rpc_method_handler if cut else grpc.unary_unary_rpc_method_handler
        return make(
            call, request_deserializer=asked.FromString, response_serializer=told.SerializeToString
        )

    calls = {
        name: method(partial(joined, name), Piece, Answer, cut=True)
        if name in IN_PIECES
        else method(partial(answer, name), Task, Answer)
        for name in CALLS
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {**calls, "Status": method(status, Nothing, State)}
    )


def _joined(agent: Agent, call: str, pieces: Iterator[Piece]) -> Answer:
    """Answer a message that comes in pieces; one that is too large is not read to its end."""
    first, content = None, bytearray()
    for piece in pieces:
        first = first or piece
        if len(content) + len(piece.content) > MOST_BYTES:
            return agent.refuse(first.kind, first.run, TOO_LARGE)
        content += piece.content
    if first is None:
        return agent.refuse("", 0, "message.invalid")
    return agent.answer(call, Task(run=first.run, kind=first.kind, content=bytes(content)))
