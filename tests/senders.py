"""Sends a backbone to an agent, as a coordinator's server does through Flower."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from fedtl.agent.client import AgentClient
from fedtl.backbone import BackboneCard, resolve, store
from fedtl.wire.backbone import BACKBONE, offer_content, piece_content, read_have


def card_and_weights(home: Path, image_size: int = 32) -> tuple[BackboneCard, bytes]:
    """Resolve a real backbone in a home of the coordinator's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTL_HOME", str(home))
        card = resolve("tf_efficientnet_lite0", image_size=image_size)
        return card, store.get(card.sha256)


class Sender:
    """One coordinator; notes every answer.

    Attributes
    ----------
    told : list
        Bytes that the site said it has, or a failure code, in order.
    """

    def __init__(self, socket: Path, card: BackboneCard, weights: bytes) -> None:
        self.told: list[int | str] = []
        self._agent, self._card, self._weights = AgentClient(socket), card, weights

    def offer(self) -> int | str:
        return self._ask(offer_content(self._card.to_json(), len(self._weights)))

    def piece(self, start: int, size: int) -> int | str:
        body = self._weights[start : start + size]
        return self._ask(piece_content(self._card.sha256, start, body))

    def send(self, size: int = 5 << 20) -> int | str:
        """Offer the backbone and send what is missing; return the last answer."""
        have = self.offer()
        while isinstance(have, int) and have < len(self._weights):
            have = self.piece(have, size)
        return have

    def _ask(self, content: RecordDict) -> int | str:
        reply = self._agent.ask(Message(content, 1, BACKBONE), 7, timeout=60)
        self.told.append(str(reply.error.reason) if reply.has_error() else read_have(reply))
        return self.told[-1]
