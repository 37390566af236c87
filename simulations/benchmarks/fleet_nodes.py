"""Many nodes in one process: threads that speak Flower's fleet API and answer at once.

Flower has no public way to speak it, so this uses private names of Flower 1.41, as its SuperNode
does. A SuperNode that gets an error from SuperLink ends, and is started again by whatever keeps it
up; these nodes try the same call again instead, and count.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    pull_and_inflate_object_from_tree,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedtl import __version__
from fedtl.transport._identity import ensure_identity, set_message_id
from fedtl.types import Description, Update
from fedtl.wire.messages import DESCRIBE, description_reply, read_request, update_reply

IDLE_SECONDS = 3.0
"""As long as Flower's SuperNode waits before it looks for a message again."""
_HEARTBEAT_SECONDS, _AGAIN_SECONDS = 20.0, 1.0
_INTERVAL = 30.0

T = TypeVar("T")


@dataclass
class Nodes:
    """What the nodes of a process have in common.

    Attributes
    ----------
    address : str
        SuperLink's.
    description : Description
        What every node says of itself, with a name of its own.
    done : Event
        Set when all are to stop.
    """

    address: str
    description: Description
    done: threading.Event = field(default_factory=threading.Event)
    _errors: Iterator[int] = field(default_factory=itertools.count)

    def errors(self) -> int:
        """Return how many calls failed at SuperLink; ask once, at the end."""
        return next(self._errors)

    def insist(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call until SuperLink does not fail."""
        while True:
            try:
                return call(*arguments)
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500 or self.done.wait(_AGAIN_SECONDS):
                    raise
            except httpx.TransportError:
                if self.done.wait(_AGAIN_SECONDS):
                    raise
            next(self._errors)

    def be(self, at: int) -> None:
        """Be one node until all are told to stop."""
        private, public = generate_key_pairs()
        interceptors: list[ProtobufClientInterceptor] = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
        ]
        opened = FleetHttpClient.from_server_address(
            self.address, True, None, interceptors=interceptors
        )
        with opened as client, suppress(httpx.HTTPError):  # while everything is being stopped
            key = public_key_to_bytes(public)
            self.insist(client.RegisterNode, RegisterNodeFleetRequest(public_key=key))
            asked = ActivateNodeRequest(public_key=key, heartbeat_interval=_INTERVAL)
            node = Node(node_id=self.insist(client.ActivateNode, asked).node_id)
            beating = threading.Thread(target=self._beat, args=(client, node), daemon=True)
            beating.start()
            self._serve(client, node, f"site-{at:03d}")

    def _beat(self, client: Any, node: Any) -> None:
        """Say that a node is there, whatever it is doing."""
        asked = SendNodeHeartbeatRequest(node=node, heartbeat_interval=_INTERVAL)
        while not self.done.wait(_HEARTBEAT_SECONDS):
            with suppress(httpx.HTTPError):
                client.SendNodeHeartbeat(asked)

    def _serve(self, client: Any, node: Any, name: str) -> None:
        while not self.done.is_set():
            told = self.insist(client.PullMessages, PullMessagesRequest(node=node))
            for proto, tree in zip(told.messages_list, told.message_object_trees, strict=True):
                message = self._pull(client, node, message_from_proto(proto), tree)
                with suppress(ObjectPushError):  # an answer that came too late, as for a SuperNode
                    self._push(client, node, answer(message, name, self.description))
            if not told.messages_list:
                self.done.wait(IDLE_SECONDS)

    def _pull(self, client: Any, node: Any, head: Message, tree: Any) -> Message:
        def insisting(request: Any) -> Any:
            return self.insist(client.PullObject, request)

        def confirming(request: Any) -> Any:
            return self.insist(client.ConfirmMessageReceived, request)

        run = head.metadata.run_id
        message: Message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(insisting, node, run),
            make_confirm_message_received_fn_protobuf(confirming, node, run),
            return_type=Message,
            max_concurrent_pulls=1,
        )
        set_message_id(message, tree.object_id)
        return message

    def _push(self, client: Any, node: Any, reply: Message) -> None:
        set_message_id(reply, reply.object_id)
        request = PushMessagesRequest(
            node=node,
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[0.0],
        )
        told = self.insist(client.PushMessages, request)

        def insisting(request: Any) -> Any:
            return self.insist(client.PushObject, request)

        run, session = reply.metadata.run_id, told.session_id
        push = make_push_object_fn_protobuf(insisting, node, run, session)
        objects = get_all_nested_objects(reply)
        for name in told.objects_to_push:
            push(name, objects[name].deflate())


def answer(message: Message, name: str, description: Description) -> Message:
    """Return what a site could say: who it is, or the head with every value changed."""
    if message.metadata.message_type == DESCRIBE:
        told = Description(
            name, description.classes, description.backbone, description.width, __version__
        )
        return description_reply(message, told)
    head = read_request(message.content).arrays
    # no two nodes send the same bytes, which SuperLink would store once
    step = float(name.rpartition("-")[2]) + 1
    return update_reply(message, Update({k: v + step for k, v in head.items()}, 1.0, 1))


@contextmanager
def fleet(address: str, n: int, description: Description) -> Iterator[Nodes]:
    """Be so many nodes until the block is left."""
    ensure_identity()
    nodes = Nodes(address, description)
    threads = [threading.Thread(target=nodes.be, args=(at,), daemon=True) for at in range(n)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(IDLE_SECONDS / n)  # sites do not look for messages in step
        yield nodes
    finally:
        nodes.done.set()
        for thread in threads:
            thread.join(IDLE_SECONDS)
