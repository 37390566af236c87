"""What a SuperLink and a run's ServerApp need with ever more nodes: seconds and memory.

Real SuperLink, real ServerApp and fedtl's rounds with a head of 51 kB. The nodes are threads of
this process: they speak Flower's fleet API by Flower's own connection, look for messages as often
as a SuperNode does, and answer at once with an update of the right shape. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flower_link import app_folder, peak_bytes, superlink
from flwr.app import Message
from wire_server import CLASSES, WIDTH

from fedtl import __version__
from fedtl.transport._identity import ensure_identity
from fedtl.types import Description, Update
from fedtl.wire.messages import DESCRIBE, description_reply, read_request, update_reply

_IDLE_SECONDS = 3.0
"""As long as Flower's SuperNode waits before it looks for a message again."""


def measure(*, nodes: int, rounds: int) -> dict[str, Any]:
    """Return the median seconds of a round, and peaks of memory."""
    with tempfile.TemporaryDirectory(prefix="fedtl-") as work, superlink(Path(work)) as link:
        app = app_folder(link.folder / "fedtl")
        job = {"kind": "rounds", "metrics": "off", "nodes": nodes, "rows": 600, "phases": rounds}
        idle = link.process.memory_info().rss
        with _nodes(link.address, nodes):
            before = sum(link.process.cpu_times()[:2])
            told = link.run(app, job)
            spent = sum(link.process.cpu_times()[:2]) - before
        return {
            "nodes": nodes,
            "seconds_per_round": statistics.median(told["seconds"]),
            "slowest_seconds": max(told["seconds"]),
            "superlink_cpu_seconds_per_round": spent / (rounds + 1),
            "superlink_idle_gb": idle / 1e9,
            "superlink_peak_gb": peak_bytes(link.process) / 1e9,
            "server_app_peak_gb": told["peak_bytes"] / 1e9,
        }


@contextmanager
def _nodes(address: str, n: int) -> Iterator[None]:
    """Be so many nodes until the block is left."""
    ensure_identity()
    done = threading.Event()
    threads = [threading.Thread(target=_node, args=(address, at, done)) for at in range(n)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(_IDLE_SECONDS / n)  # sites do not look for messages in step
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _node(address: str, at: int, done: threading.Event) -> None:
    """Be one node; what a SuperNode does, without a process for each message.

    Flower has no public way to speak its fleet API, so this uses private names of Flower 1.41, as
    its own SuperNode does.
    """
    from flwr.supernode.fleet_http_connection import http_request_response

    with http_request_response(address, insecure=True) as connection:
        _, receive, send, _, _, pull, push, confirm = connection
        while not done.is_set():
            received = receive()
            if received is None:
                done.wait(_IDLE_SECONDS)
                continue
            message = _inflated(*received, pull, confirm)
            _push(_answer(message, f"site-{at:03d}"), send, push)


def _inflated(head: Message, tree: Any, pull: Any, confirm: Any) -> Message:
    from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree

    run = head.metadata.run_id
    message = pull_and_inflate_object_from_tree(
        tree,
        lambda name: pull(run, name),
        lambda name: confirm(run, name),
        return_type=Message,
        max_concurrent_pulls=1,
    )
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message


def _answer(message: Message, name: str) -> Message:
    if message.metadata.message_type == DESCRIBE:
        classes = tuple(str(c) for c in range(CLASSES))
        return description_reply(
            message, Description(name, classes, "synthetic", WIDTH, __version__)
        )
    head = read_request(message.content).arrays
    return update_reply(message, Update({k: v + 1 for k, v in head.items()}, 1.0, 1))


def _push(reply: Message, send: Any, push: Any) -> None:
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

    run = reply.metadata.run_id
    reply.metadata.__dict__["_message_id"] = reply.object_id
    wanted, session = send(reply, get_object_tree(reply), 0.0)
    objects = get_all_nested_objects(reply)
    for name in wanted:
        push(run, session, name, objects[name].deflate())


def main() -> None:
    """Read the arguments, measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    print(json.dumps(measure(**vars(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
