"""The thin ClientApp: hands each message to the site's agent and carries the answer back.

It imports neither torch nor anything that reads data, because Flower starts it anew for every
message; and as its code comes with the run, from the coordinator, nothing here is trusted by the
agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedtl.agent.agent_pb2 import Answer, Nothing, Piece, State, Task
from fedtl.agent.calls import CALL_OF, IN_PIECES, OPTIONS, PIECE_BYTES, SERVICE
from fedtl.errors import TransportError
from fedtl.transport._identity import records_from_bytes, records_to_bytes

UNAVAILABLE, TOO_LARGE = "agent.unavailable", "message.too-large"
_CODES = {grpc.StatusCode.RESOURCE_EXHAUSTED: TOO_LARGE}


class AgentClient:
    """A way to one agent.

    Parameters
    ----------
    socket : Path
        The agent's unix socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def ask(self, message: Message, run: int, *, timeout: float | None = None) -> Message:
        """Return the agent's answer to a message, or a failure code.

        Parameters
        ----------
        run : int
            Flower's run id.
        timeout : float, optional
            Longest wait in seconds.
        """
        kind = message.metadata.message_type
        call = CALL_OF.get(kind)
        if call is None:
            return _failed(message, "message.invalid")
        task = Task(run=run, kind=kind, content=records_to_bytes(message.content))
        try:
            answer: Answer = self._call(call, task, Answer, timeout)
        except grpc.RpcError as error:
            return _failed(message, _CODES.get(error.code(), UNAVAILABLE))
        if answer.failure:
            return _failed(message, answer.failure)
        return Message(records_from_bytes(answer.content), reply_to=message)

    def status(self, *, timeout: float = 5.0) -> State:
        """Return what the agent is doing.

        Raises
        ------
        TransportError
            With code ``agent.unavailable``.
        """
        try:
            state: State = self._call("Status", Nothing(), State, timeout)
        except grpc.RpcError as error:
            raise TransportError(
                f"No site agent answers at '{self._socket}'.",
                next_step="Start it, and check who may write to the socket.",
                code=UNAVAILABLE,
            ) from error
        return state

    def _call(self, name: str, sent: Task | Nothing, told: Any, timeout: float | None) -> Any:
        with grpc.insecure_channel(f"unix:{self._socket}", options=OPTIONS) as channel:
            path, read = f"/{SERVICE}/{name}", told.FromString
            if isinstance(sent, Task) and name in IN_PIECES:
                cut = channel.stream_unary(path, Piece.SerializeToString, read)
                return cut(_pieces(sent), timeout=timeout)
            return channel.unary_unary(path, type(sent).SerializeToString, read)(
                sent, timeout=timeout
            )


def _pieces(task: Task) -> Iterator[Piece]:
    for start in range(0, max(len(task.content), 1), PIECE_BYTES):
        part = task.content[start : start + PIECE_BYTES]
        yield Piece(run=task.run, kind=task.kind, content=part)


def thin_client_app(otherwise: Callable[[], ClientApp]) -> ClientApp:
    """Return a ClientApp that knows nothing but where the agent is.

    That is the ``agent`` of Flower's node config, the path of a unix socket.

    Parameters
    ----------
    otherwise : callable
        Returns the ClientApp of a node that names no agent, and may import what it needs.
    """
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        if socket := context.node_config.get("agent"):
            return AgentClient(Path(str(socket))).ask(message, context.run_id)
        return otherwise()(message, context)

    register = {"train": app.train, "evaluate": app.evaluate, "query": app.query}
    for kind in CALL_OF:
        verb, _, action = kind.partition(".")
        (register[verb](action) if action else register[verb]())(answer)
    return app


def _failed(message: Message, code: str) -> Message:
    return Message(Error(code=1, reason=code), reply_to=message)
