"""Which messages each call of the agent accepts, and how large they may be."""

from __future__ import annotations

from fedtl.wire.kinds import (
    BACKBONE,
    CONFIRM,
    DESCRIBE,
    EVALUATE,
    KEYS,
    MECHANISMS,
    REVEAL,
    SHARES,
    TRAIN,
)

SERVICE = "fedtl.agent.SiteAgent"
CALLS: dict[str, tuple[str, ...]] = {
    "Describe": (DESCRIBE,),
    "Train": (TRAIN,),
    "Sums": tuple(kind for kind in MECHANISMS if kind.startswith(f"{TRAIN}.")),
    "Evaluate": (EVALUATE,),
    "Install": (BACKBONE,),
    "Aggregate": (KEYS, SHARES, CONFIRM, REVEAL),
}
"""Call to the types of message it accepts."""
CALL_OF = {kind: call for call, kinds in CALLS.items() for kind in kinds}
MOST_BYTES = 1 << 28
"""Of one message, 256 MiB: a Gram matrix of 8,000 features fits."""
OPTIONS = [
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.max_receive_message_length", MOST_BYTES),
]
IN_PIECES = frozenset({"Install"})
"""Calls whose message is cut into pieces."""
PIECE_BYTES = 1 << 20
LONGEST_PATH = 100
"""Characters of a unix socket's path; the system allows 107."""
