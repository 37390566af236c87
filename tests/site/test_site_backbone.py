"""A backbone arrives whole and as it was offered, or not at all; a cut costs nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from fedtl.backbone import BackboneCard, store
from fedtl.errors import FedtlError
from fedtl.site import backbone
from fedtl.site.backbone import LARGEST, read_card, remember, remembered, take_offer, take_piece
from fedtl.wire.backbone import Offer, Piece

WEIGHTS = bytes(range(256)) * 40
CARD = BackboneCard(
    architecture="resnet10t",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    source="timm",
    licence="apache-2.0",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    crop_pct=0.9,
    crop_mode="center",
    native_size=32,
    image_size=32,
    taps=("head",),
    tap_widths=(512,),
    timm_version="1.0",
)

pytestmark = pytest.mark.usefixtures("fresh_home")


def offer(card: BackboneCard = CARD, n_bytes: int = len(WEIGHTS)) -> int:
    return take_offer(Offer(card.to_json(), n_bytes))[0]


def piece(start: int, end: int, weights: bytes = WEIGHTS) -> Piece:
    return Piece(CARD.sha256, start, np.frombuffer(weights[start:end], np.uint8))


def refused(what: Offer | Piece) -> str:
    with pytest.raises(FedtlError) as error:
        take_offer(what) if isinstance(what, Offer) else take_piece(what)
    return error.value.code


def test_it_arrives_in_pieces_and_a_cut_costs_nothing() -> None:
    assert offer() == 0
    assert take_piece(piece(0, 4000)) == (4000, None)
    assert take_piece(piece(0, 4000)) == (4000, None)  # repeated: not taken twice
    assert take_piece(piece(8000, 9000)) == (4000, None)  # one was lost on the way
    assert offer() == 4000  # whoever was restarted meanwhile
    have, card = take_piece(piece(4000, len(WEIGHTS)))
    assert have == len(WEIGHTS)
    assert card is not None
    assert card.digest() == CARD.digest()
    assert store.get(CARD.sha256) == WEIGHTS
    assert {p.name for p in store.folder(CARD.sha256).iterdir()} == {
        "weights.safetensors",
        "card.json",
    }


def test_what_is_here_already_is_not_sent_again() -> None:
    store.put(WEIGHTS)
    have, card = take_offer(Offer(CARD.to_json(), len(WEIGHTS)))
    assert have == len(WEIGHTS)
    assert card is not None


def test_a_whole_part_that_nobody_looked_at_is_taken() -> None:
    """The process was killed between the last byte and the check of the digest."""
    offer()
    store.part(CARD.sha256).write_bytes(WEIGHTS)
    assert take_offer(Offer(CARD.to_json(), len(WEIGHTS)))[1] is not None
    assert store.get(CARD.sha256) == WEIGHTS


@pytest.mark.parametrize(
    ("sent", "n_bytes"),
    [
        (WEIGHTS[:5000] + b"!" + WEIGHTS[5001:], len(WEIGHTS)),  # tampered with
        (bytes(len(WEIGHTS)), len(WEIGHTS)),  # swapped
        (WEIGHTS[:-1], len(WEIGHTS) - 1),  # truncated
    ],
)
def test_other_weights_than_the_cards_are_refused_by_name(sent: bytes, n_bytes: int) -> None:
    assert offer(n_bytes=n_bytes) == 0
    assert refused(piece(0, n_bytes, sent)) == "backbone.tampered"
    assert not store.has(CARD.sha256)
    assert not store.part(CARD.sha256).exists()
    assert offer() == 0
    assert take_piece(piece(0, len(WEIGHTS)))[1] is not None  # and the right ones are taken


def test_weights_that_rotted_in_the_store_are_fetched_again() -> None:
    store.put(WEIGHTS)
    (store.folder(CARD.sha256) / "weights.safetensors").write_bytes(b"rotten")
    assert offer() == 0


def test_more_than_was_offered_is_refused() -> None:
    offer()
    assert refused(piece(0, len(WEIGHTS) + 1, WEIGHTS + b"x")) == "message.invalid"
    assert offer() == 0


def test_a_piece_that_nobody_offered_is_refused() -> None:
    assert refused(piece(0, 100)) == "backbone.unknown-offer"


BAD = {
    "a place on the hub": {"architecture": "hf-hub:someone/model"},
    "a path": {"architecture": "../../etc/passwd"},
    "a folder": {"architecture": "local-dir:/tmp"},
    "a digest that is a path": {"sha256": "../../../../etc/passwd"},
    "a line break": {"source": "a\nb"},
    "an escape": {"licence": "\x1b[2J"},
    "an endless word": {"taps": ["x" * 1000]},
    "too many taps": {"taps": ["head"] * 99, "tap_widths": [1] * 99},
    "endless features": {"tap_widths": [1 << 40]},
    "a size that exhausts the memory": {"image_size": 100_000},
    "a missing field": {"mean": None},
}


@pytest.mark.parametrize("what", BAD)
def test_a_card_with_tricks_in_it_is_refused(what: str) -> None:
    card = json.dumps({**asdict(CARD), **BAD[what]})
    assert refused(Offer(card, len(WEIGHTS))) == "backbone.card"
    assert not store.root().exists()


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(Offer(CARD.to_json(), LARGEST + 1)) == "backbone.too-large"
    assert refused(Offer(CARD.to_json(), 0)) == "backbone.too-large"
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        backbone.shutil, "disk_usage", lambda path: usage._replace(free=len(WEIGHTS))
    )
    assert refused(Offer(CARD.to_json(), len(WEIGHTS))) == "backbone.too-large"


def test_parts_of_other_backbones_do_not_pile_up() -> None:
    offer()
    take_piece(piece(0, 4000))
    offer(replace(CARD, sha256="ab" * 32))
    assert not store.part(CARD.sha256).exists()
    assert offer() == 0


def test_sent_weights_never_stand_for_a_plain_name() -> None:
    """Or a coordinator could exchange what `fedtl simulate` takes for the official ones."""
    offer()
    take_piece(piece(0, len(WEIGHTS)))
    assert store.find(CARD.architecture) is None
    (kept,) = store.cards()
    assert kept.source == "file sent by the coordinator: timm"
    assert read_card(kept.to_json()) == kept


def test_a_site_remembers_what_it_can_use(tmp_path: Path) -> None:
    assert remembered(tmp_path) is None
    remember(tmp_path, CARD)
    assert remembered(tmp_path) is None  # its weights are gone
    store.put(WEIGHTS)
    card = remembered(tmp_path)
    assert card is not None
    assert card.digest() == CARD.digest()
    for text in (b"", b"\xff", b"{}", b"[]"):
        (tmp_path / "backbone.json").write_bytes(text)
        assert remembered(tmp_path) is None
