"""What messages say by which a backbone is sent to a site, once: an offer, then pieces of a file.

====================  ================================================  ==========================
``query.backbone``    asks                                              answer
====================  ================================================  ==========================
an offer              card (JSON), size of ``weights.safetensors``      ``have``: bytes the site has
a piece               digest of the weights, offset, bytes (uint8)      ``have``: bytes it has now
====================  ================================================  ==========================

The server sends the piece that begins at ``have`` until ``have`` is the size: so a transfer goes on
where a cut left it. A piece that begins elsewhere is not taken; its answer says where to go on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedtl.errors import FedtlError
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.charter import CHARTER
from fedtl.wire.kinds import BACKBONE as BACKBONE
from fedtl.wire.messages import records

PIECE_BYTES = 32 << 20
"""Of a usual piece, 32 MiB: a site keeps at most this much of a transfer in memory."""
_LARGEST_CARD = 1 << 16


@dataclass(frozen=True, slots=True)
class Offer:
    """A backbone that a site could have.

    Attributes
    ----------
    card : str
        JSON of a :class:`~fedtl.backbone.BackboneCard`, not yet checked.
    n_bytes : int
        Size of its weights.
    """

    card: str
    n_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some bytes of the weights of a backbone that was offered.

    Attributes
    ----------
    sha256 : str
        Of the whole weights, 64 hexadecimal digits.
    offset : int
        Where the piece begins.
    values : NDArray[np.uint8]
        ``[n]``.
    """

    sha256: str
    offset: int
    values: NDArray[np.uint8]


def offer_content(card: str, n_bytes: int) -> RecordDict:
    """Return what an offer says.

    Parameters
    ----------
    card : str
        ``BackboneCard.to_json()``.
    n_bytes : int
        Size of its weights.
    """
    return RecordDict({"backbone": ConfigRecord({"card": card, "bytes": n_bytes})})


def piece_content(sha256: str, offset: int, piece: bytes) -> RecordDict:
    """Return what a piece says; its bytes are an array, so that Flower sends them in chunks."""
    about = ConfigRecord({"sha256": sha256, "offset": offset})
    values = np.frombuffer(piece, np.uint8)
    return RecordDict({"backbone": about, "arrays": pack({"piece": values})})


def read_backbone(content: RecordDict) -> Offer | Piece:
    """Read :func:`offer_content` or :func:`piece_content`, which may come from anyone.

    Raises
    ------
    FedtlError
        With code ``message.invalid``.
    """
    content = RecordDict({key: record for key, record in content.items() if key != CHARTER})
    abouts, arrays = records(content, ConfigRecord), records(content, ArrayRecord)
    if len(abouts) != 1 or len(abouts) + len(arrays) != len(content) or len(arrays) > 1:
        raise _invalid()
    about = dict(abouts[0].items())
    if not arrays:
        card, n_bytes = about.get("card"), about.get("bytes")
        if not isinstance(card, str) or len(card) > _LARGEST_CARD or not _is_size(n_bytes):
            raise _invalid()
        return Offer(card, n_bytes)
    sha256, offset = about.get("sha256"), about.get("offset")
    values = unpack(arrays[0], dtypes=("uint8",))
    if set(values) != {"piece"} or values["piece"].ndim != 1 or not _is_size(offset):
        raise _invalid()
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise _invalid()
    return Piece(sha256, offset, values["piece"])


def have_content(have: int) -> RecordDict:
    """Return a site's answer: how many bytes of the weights it has, from the beginning."""
    return RecordDict({"backbone": ConfigRecord({"have": have})})


def read_have(reply: Message) -> int:
    """Read a site's answer.

    Raises
    ------
    FedtlError
        With code ``message.invalid``: a failure, or anything that is not exactly such an answer.
    """
    abouts = records(reply.content, ConfigRecord) if reply.has_content() else []
    have = abouts[0].get("have") if len(abouts) == 1 else None
    if not _is_size(have):
        raise _invalid()
    return have


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _invalid() -> FedtlError:
    return FedtlError(
        "The message is not one of fedtl's about backbones.",
        next_step="Server and site must run the same version of fedtl.",
        code="message.invalid",
    )
