"""The server's half of sending a backbone to the sites that have not got it; once, by digest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedtl.backbone import BackboneCard
from fedtl.errors import FedtlError
from fedtl.rounds.check import MISSING, failure_code
from fedtl.wire.backbone import BACKBONE, PIECE_BYTES, offer_content, piece_content, read_have

_MOST_IDLE = 3
"""Answers in a row that bring a site no further before it is given up."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it.

    Attributes
    ----------
    complete : frozenset of int
        Nodes that have the weights now.
    failures : mapping of int to str
        Node to failure code.
    """

    complete: frozenset[int]
    failures: Mapping[int, str]


def send_backbone(
    grid: Grid,
    nodes: Collection[int],
    *,
    card: BackboneCard,
    weights: bytes,
    timeout: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    piece_bytes: int = PIECE_BYTES,
) -> Sent:
    """Offer a backbone to some nodes, and send each what it has not got.

    Parameters
    ----------
    weights : bytes
        The safetensors file that the card names.
    progress : callable
        Called with the bytes that the slowest site has, and with those of the file.
    """
    total = len(weights)
    have, failures = _told(
        grid, dict.fromkeys(nodes, offer_content(card.to_json(), total)), timeout
    )
    idle = dict.fromkeys(have, 0)
    while lacking := {node: at for node, at in have.items() if at < total}:
        pieces = {
            at: piece_content(card.sha256, at, weights[at : at + piece_bytes])
            for at in set(lacking.values())
        }
        told, lost = _told(grid, {node: pieces[at] for node, at in lacking.items()}, timeout)
        idle = {n: 0 if now > lacking[n] else idle[n] + 1 for n, now in told.items()}
        failures |= lost | {n: "backbone.stuck" for n, times in idle.items() if times >= _MOST_IDLE}
        have = {n: at for n, at in (have | told).items() if n not in failures}
        progress(min(have.values(), default=total), total)
    return Sent(frozenset(have), failures)


def _told(
    grid: Grid, contents: Mapping[int, RecordDict], timeout: float | None
) -> tuple[dict[int, int], dict[int, str]]:
    """Return how many bytes each node has now, and the failure codes of the others."""
    messages = [Message(content, node, BACKBONE) for node, content in contents.items()]
    have: dict[int, int] = {}
    failures = dict.fromkeys(contents, MISSING)
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                failures[node] = failure_code(reply)
            else:
                have[node] = read_have(reply)
                failures.pop(node, None)
        except FedtlError as error:
            failures[node] = error.code
    return have, failures
