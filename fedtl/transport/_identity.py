"""The one door to names that Flower 1.41 keeps private.

``Message(...)`` needs a task identity that only Flower's own runtimes set, and message ids stay
empty unless the Grid writes them, without which a reply cannot be matched to its request.
"""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "NODE_UNAVAILABLE",
    "Run",
    "empty_run",
    "ensure_identity",
    "records_from_bytes",
    "records_to_bytes",
    "set_message_id",
    "with_content",
]

NODE_UNAVAILABLE = ErrorCode.NODE_UNAVAILABLE
"""Code of the reply that SuperLink makes up for a node that is offline."""
RUN_ID = 1
SERVER_NODE_ID = 1


def ensure_identity() -> None:
    """Give this process a task identity unless Flower's runtime has given it one."""
    try:
        _ = TaskIdentity.run_id
    except RuntimeError:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = RUN_ID
        TaskIdentity.node_id = SERVER_NODE_ID


def empty_run() -> Run:
    """Return the run of an in-process Grid, which has nothing to say about itself."""
    return Run.create_empty(run_id=RUN_ID)


def set_message_id(message: Message, message_id: str) -> None:
    """Write a message's id, as SuperLink does when it takes a message in."""
    message.metadata.__dict__["_message_id"] = message_id


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a message of the same metadata with other content."""
    return Message(content, metadata=message.metadata)  # type: ignore[call-overload, no-any-return]


def records_to_bytes(content: RecordDict) -> bytes:
    """Return a message's records as Flower's protobuf message."""
    body: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return body


def records_from_bytes(body: bytes) -> RecordDict:
    """Read :func:`records_to_bytes`; bytes that are none raise ``ValueError``."""
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(body))
    except Exception as error:  # protobuf's own errors, and Flower's checks of types
        raise ValueError("no records") from error
