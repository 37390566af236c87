"""The agent's process: a gRPC service on a unix socket, around the one site object.

Messages are answered by the very functions that answer in a simulation, one at a time; what a site
remembers between messages of a run stays here, not with the ClientApp.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from flwr.app import Context, Message, RecordDict
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedtl import __version__
from fedtl.agent.agent_pb2 import Answer, Nothing, State, Task
from fedtl.agent.calls import CALLS, LONGEST_PATH, OPTIONS, SERVICE
from fedtl.agent.client import AgentClient
from fedtl.apps.client import make_client_app
from fedtl.errors import CacheError, TransportError
from fedtl.rounds.check import failure_code
from fedtl.site.site import Site
from fedtl.transport._identity import ensure_identity, records_from_bytes, records_to_bytes

_log = logging.getLogger("fedtl.agent")
_NODE, _WAITING, _RUNS = 1, 32, 64


class Agent:
    """Answers for one site.

    Parameters
    ----------
    site : Site
        With its policy, its ledger and its data.
    """

    def __init__(self, site: Site) -> None:
        ensure_identity()
        self._site = site
        self._app = make_client_app(lambda context: site)
        self._contexts: dict[int, Context] = {}
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._started = time.monotonic()
        self._state = State(site=site.name, version=__version__)

    def answer(self, call: str, task: Task) -> Answer:
        """Answer one message; whatever goes wrong is a code."""
        try:
            if task.kind not in CALLS[call]:
                raise ValueError(f"{call} does not accept '{task.kind[:60]}'")
            content = records_from_bytes(task.content)
        except ValueError as error:
            _log.warning("A message was refused: %s.", error)
            return self._counted(Answer(failure="message.invalid"))
        with self._waiting(), self._turn:
            self._state.busy = task.kind
            try:
                return self._counted(self._answer(task, content))
            finally:
                self._state.busy = ""

    def _answer(self, task: Task, content: RecordDict) -> Answer:
        message = Message(content, _NODE, task.kind)
        try:
            reply = self._app(message, self._context(task.run))
        except Exception:
            _log.exception("%s: unexpected failure", self._site.name)
            return Answer(failure="site.failed")
        if reply.has_error():
            return Answer(failure=failure_code(reply))
        return Answer(content=records_to_bytes(reply.content))

    def _context(self, run: int) -> Context:
        """Return what the site remembers of a run; of the oldest runs it forgets."""
        while run not in self._contexts and len(self._contexts) >= _RUNS:
            self._contexts.pop(next(iter(self._contexts)))
        return self._contexts.setdefault(
            run,
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

    def _counted(self, answer: Answer) -> Answer:
        with self._counting:
            if answer.failure:
                self._state.refused += 1
            else:
                self._state.answered += 1
        return answer

    def status(self) -> State:
        """Return what the agent is doing; never waits for a turn."""
        with self._counting:
            state = State()
            state.CopyFrom(self._state)
        state.waiting -= 1 if state.busy else 0
        state.uptime_seconds = time.monotonic() - self._started
        return state


@contextmanager
def serving(site: Site, socket: Path, *, mode: int = 0o600) -> Iterator[Agent]:
    """Serve a site on a unix socket until the block is left; the socket file goes with it.

    Parameters
    ----------
    socket : Path
        In a folder that exists; only who may write to it can ask.
    mode : int
        The socket's permissions, from the first moment.

    Raises
    ------
    TransportError
        Another agent answers there, or the path is too long for a socket.
    CacheError
        Something that is no socket lies there, or the folder cannot be written.
    """
    _make_room(socket)
    agent = Agent(site)
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

    def status(nothing: Nothing, context: Any) -> State:
        return agent.status()

    def method(call: Callable[..., Any], asked: Any, told: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=asked.FromString, response_serializer=told.SerializeToString
        )

    calls = {name: method(partial(answer, name), Task, Answer) for name in CALLS}
    return grpc.method_handlers_generic_handler(
        SERVICE, {**calls, "Status": method(status, Nothing, State)}
    )


def _make_room(socket: Path) -> None:
    """Take away the socket of an agent that is gone; never that of one that answers."""
    if len(str(socket)) > LONGEST_PATH:
        raise TransportError(
            f"The path of the socket '{socket}' is longer than {LONGEST_PATH} characters.",
            next_step="Name a shorter folder: the system limits the paths of sockets.",
            code="agent.socket",
        )
    if not socket.exists():
        return
    if not stat.S_ISSOCK(socket.stat().st_mode):
        raise CacheError(
            f"'{socket}' is in the way: it is no socket.",
            next_step="Move it, or name another place.",
            code="agent.socket",
        )
    try:
        found = AgentClient(socket).status(timeout=2)
    except TransportError:
        socket.unlink(missing_ok=True)
        return
    raise TransportError(
        f"An agent of '{found.site}' answers at '{socket}' already.",
        next_step="Stop it first, or name another place.",
        code="agent.running",
    )
