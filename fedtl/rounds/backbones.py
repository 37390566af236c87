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

_MOST_STEPS = 3
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
    failures: dict[int, str] = {}
    have = dict.fromkeys(nodes, 0)
    stuck = dict.fromkeys(nodes, 0)
    contents: dict[int, RecordDict] = {-1: offer_content(card.to_json(), total)}
    at = dict.fromkeys(nodes, -1)
    while open_ones := [n for n in nodes if n not in failures and (at[n] < 0 or have[n] < total)]:
        for start in {at[n] for n in open_ones} - set(contents):
            piece = weights[start : start + piece_bytes]
            contents[start] = piece_content(card.sha256, start, piece)
        messages = [Message(contents[at[n]], n, BACKBONE) for n in open_ones]
        told = _told(grid, messages, timeout)
        for node in open_ones:
            now = told.get(node, MISSING)
            if isinstance(now, str):
                failures[node] = now
                continue
            stuck[node] = 0 if now > have[node] or at[node] < 0 else stuck[node] + 1
            have[node] = at[node] = min(now, total)
            if stuck[node] >= _MOST_STEPS:
                failures[node] = "backbone.stuck"
        contents = {start: c for start, c in contents.items() if start in {at[n] for n in nodes}}
        progress(min((have[n] for n in nodes if n not in failures), default=total), total)
    complete = frozenset(n for n in nodes if n not in failures)
    return Sent(complete, failures)


def _told(grid: Grid, messages: list[Message], timeout: float | None) -> dict[int, int | str]:
    """Return how many bytes every node has, or its failure code."""
    told: dict[int, int | str] = {}
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node = reply.metadata.src_node_id
        try:
            told[node] = failure_code(reply) if reply.has_error() else read_have(reply)
        except FedtlError as error:
            told[node] = error.code
    return told
