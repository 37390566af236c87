"""A backbone on the wire: what was said is read, and nothing else is taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedtl.errors import FedtlError
from fedtl.transport._identity import ensure_identity, records_from_bytes, records_to_bytes
from fedtl.wire.arrays import pack
from fedtl.wire.backbone import (
    BACKBONE,
    Offer,
    Piece,
    have_content,
    offer_content,
    piece_content,
    read_backbone,
    read_have,
)

ensure_identity()
SHA = "ab" * 32


def sent(content: RecordDict) -> RecordDict:
    return records_from_bytes(records_to_bytes(content))


def reply(content: RecordDict) -> Message:
    return Message(content, reply_to=Message(RecordDict(), 1, BACKBONE))


def test_what_is_said_is_read() -> None:
    assert read_backbone(sent(offer_content("{}", 7))) == Offer("{}", 7)
    piece = read_backbone(sent(piece_content(SHA, 3, b"\x00\xff\x07")))
    assert isinstance(piece, Piece)
    assert (piece.sha256, piece.offset, piece.values.tobytes()) == (SHA, 3, b"\x00\xff\x07")
    assert read_have(reply(sent(have_content(5)))) == 5


def arrays(**values: np.ndarray) -> RecordDict:
    about = ConfigRecord({"sha256": SHA, "offset": 0})
    return RecordDict({"backbone": about, "arrays": pack(values)})


def about(**values: object) -> RecordDict:
    return RecordDict({"backbone": ConfigRecord(values)})  # type: ignore[arg-type]


WRONG = {
    "nothing": RecordDict(),
    "no size": about(card="{}"),
    "a size below zero": about(card="{}", bytes=-1),
    "a size that is a truth": about(card="{}", bytes=True),
    "a card that is none": about(card=3, bytes=1),
    "an endless card": about(card="x" * (1 << 17), bytes=1),
    "two records": RecordDict({"a": ConfigRecord(), "b": ConfigRecord()}),
    "a path for a digest": piece_content("../" * 20 + "etc", 0, b"x"),
    "an offset below zero": piece_content(SHA, -1, b"x"),
    "another name": arrays(weights=np.zeros(2, np.uint8)),
    "two arrays": arrays(piece=np.zeros(2, np.uint8), more=np.zeros(2, np.uint8)),
    "another type": arrays(piece=np.zeros(2, np.float32)),
    "another shape": arrays(piece=np.zeros((2, 2), np.uint8)),
}


@pytest.mark.parametrize("what", WRONG)
def test_anything_else_is_refused(what: str) -> None:
    with pytest.raises(FedtlError) as error:
        read_backbone(sent(WRONG[what]))
    assert error.value.code == "message.invalid"


def test_an_answer_is_a_number_of_bytes() -> None:
    failed = Message(Error(1, "policy.backbone"), reply_to=Message(RecordDict(), 1, BACKBONE))
    for wrong in (failed, reply(RecordDict()), reply(about(have=-1)), reply(about(have="7"))):
        with pytest.raises(FedtlError):
            read_have(wrong)
