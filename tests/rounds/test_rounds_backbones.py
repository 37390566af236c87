"""The server's half of a transfer: everybody gets what he lacks, once; nobody holds others up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedtl.backbone import resolve
from fedtl.rounds.backbones import Sent, send_backbone
from fedtl.transport.local import LocalGrid
from fedtl.transport.wrappers import MeteredGrid
from fedtl.wire.backbone import Offer, have_content, read_backbone

WEIGHTS = np.random.default_rng(1).bytes(10_000)
PIECE = 1_000


@dataclass
class Keeper:
    """A site that keeps what it is sent; ``code`` refuses, ``deaf`` stands still."""

    kept: bytes = b""
    code: str = ""
    deaf: bool = False
    asked: list[str] = field(default_factory=list)


def sent(keepers: list[Keeper]) -> tuple[Sent, dict[int, int], list[tuple[int, int]]]:
    """Return what came of it, the bytes sent to each node, and what was said of its progress."""
    app = ClientApp()

    @app.query("backbone")
    def keep(message: Message, context: Context) -> Message:
        keeper = keepers[int(context.node_config["partition-id"])]
        said = read_backbone(message.content)
        keeper.asked.append(type(said).__name__)
        if keeper.code:
            return Message(Error(code=1, reason=keeper.code), reply_to=message)
        if not isinstance(said, Offer) and not keeper.deaf and said.offset == len(keeper.kept):
            keeper.kept += said.values.tobytes()
        return Message(have_content(len(keeper.kept)), reply_to=message)

    grid = MeteredGrid(LocalGrid(app, [f"site-{at}" for at in range(len(keepers))]))
    card = replace(resolve("tf_efficientnet_lite0"), sha256=hashlib.sha256(WEIGHTS).hexdigest())
    told: list[tuple[int, int]] = []
    outcome = send_backbone(
        grid,
        list(grid.get_node_ids()),
        card=card,
        weights=WEIGHTS,
        progress=lambda done, total: told.append((done, total)),
        piece_bytes=PIECE,
    )
    return outcome, dict(grid.traffic.down), told


def test_everybody_gets_the_whole_file_once_and_who_has_it_gets_nothing() -> None:
    new, cut, has = Keeper(), Keeper(WEIGHTS[:3_500]), Keeper(WEIGHTS)
    outcome, down, told = sent([new, cut, has])
    assert outcome.complete == {1000, 1001, 1002}
    assert not outcome.failures
    assert new.kept == cut.kept == WEIGHTS
    assert down.get(1002, 0) == 0
    assert down[1001] < down[1000] < 1.2 * len(WEIGHTS)
    assert has.asked == ["Offer"]
    assert len(new.asked) == 1 + len(WEIGHTS) / PIECE
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Keeper(code="policy.backbone"), "policy.backbone"),
        (Keeper(code="backbone.tampered"), "backbone.tampered"),
        (Keeper(deaf=True), "backbone.stuck"),
    ],
)
def test_a_site_that_takes_nothing_is_named_and_holds_nobody_up(bad: Keeper, code: str) -> None:
    good = Keeper()
    outcome, _, _ = sent([bad, good])
    assert outcome.failures == {1000: code}
    assert outcome.complete == {1001}
    assert good.kept == WEIGHTS
