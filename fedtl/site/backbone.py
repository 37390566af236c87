"""How a backbone arrives at a site: offered, sent in pieces, checked, and kept for the next run.

What has arrived of it lies in the store, beside what was offered, so that a transfer goes on where
it was cut, whichever side was restarted. Weights are taken for what they are by their digest only.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from fedtl.backbone import BackboneCard, store
from fedtl.errors import BackboneError, FedtlError
from fedtl.home import unwritable, write_atomic
from fedtl.wire.backbone import Offer, Piece

BACKBONE_FILE = "backbone.json"
"""In a state folder: the card of the backbone that the coordinator sent last."""
LARGEST = 8 << 30
"""Of the weights of a backbone, 8 GiB."""
_RESERVE = 1 << 30
"""Bytes that a transfer leaves free on the disk."""
_OFFER = "offer.json"
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_-]+)?")
_WIDEST, _LONGEST, _TAPS = 1 << 20, 200, 64


def read_card(text: str) -> BackboneCard:
    """Read a card that a coordinator sent; of its source it says that it was sent.

    The store never takes weights of such a source for those that a plain name means.

    Raises
    ------
    BackboneError
        With code ``backbone.card``.
    """
    card = BackboneCard.from_json(text)
    words = (card.source, card.licence, card.timm_version, *card.taps)
    good = (
        _NAME.fullmatch(card.architecture)
        and all(word.isprintable() and len(word) <= _LONGEST for word in words)
        and len(card.architecture) <= _LONGEST
        and len(card.taps) <= _TAPS
        and card.width <= _WIDEST
    )
    if not good:
        raise BackboneError(
            "The card of the backbone that was offered has names or sizes that no backbone has.",
            next_step="Ask the coordinator which backbone the run uses.",
            code="backbone.card",
        )
    sent = f"{store.BY_HAND}sent by the coordinator"
    return card if card.source.startswith(sent) else replace(card, source=f"{sent}: {card.source}")


def take_offer(offer: Offer) -> tuple[int, BackboneCard | None]:
    """Return how many bytes of an offered backbone are here, and its card if all are.

    Parameters
    ----------
    offer : Offer
        Not of the active backbone, and allowed by the policy.

    Raises
    ------
    BackboneError
        ``backbone.card``, or ``backbone.too-large``: for fedtl, or for the disk.
    """
    card = read_card(offer.card)
    if store.intact(card.sha256):
        return offer.n_bytes, card
    _check_size(card, offer.n_bytes)
    if _offered(card.sha256) != (card, offer.n_bytes):
        _drop_others(card.sha256)
        text = json.dumps({"card": card.to_json(), "bytes": offer.n_bytes})
        path = store.folder(card.sha256) / _OFFER
        write_atomic(path, lambda file: file.write(text.encode()))
    have = _arrived(card.sha256, offer.n_bytes)
    return (have, None) if have < offer.n_bytes else (have, _adopted(card))


def take_piece(piece: Piece) -> tuple[int, BackboneCard | None]:
    """Append a piece; return how many bytes are here, and the card once all are and were checked.

    Raises
    ------
    FedtlError
        ``backbone.unknown-offer``: nobody offered it. ``message.invalid``: more than was offered.
        ``backbone.tampered``: all is here, and it is something else; it is deleted.
    CacheError
        The store cannot be written, as with ``disk.full``.
    """
    offered = _offered(piece.sha256)
    if offered is None:
        raise BackboneError(
            "A piece of a backbone came that was not offered.",
            next_step="The server has to offer it first.",
            code="backbone.unknown-offer",
        )
    card, n_bytes = offered
    have = _arrived(card.sha256, n_bytes)
    if piece.offset != have:
        return have, None
    if have + len(piece.values) > n_bytes:
        raise FedtlError(
            "A piece of a backbone goes on after its end.",
            next_step="Server and site must run the same version of fedtl.",
            code="message.invalid",
        )
    path = store.part(card.sha256)
    try:
        with path.open("ab") as file:
            file.write(piece.values.tobytes())
    except OSError as error:
        raise unwritable(path, error) from error
    if (have := have + len(piece.values)) < n_bytes:
        return have, None
    return have, _adopted(card)


def _adopted(card: BackboneCard) -> BackboneCard:
    store.adopt(card)
    (store.folder(card.sha256) / _OFFER).unlink(missing_ok=True)
    return card


def remember(folder: Path, card: BackboneCard) -> None:
    """Note in a state folder that this backbone was sent and can be used."""
    write_atomic(
        folder / BACKBONE_FILE, lambda file: file.write(card.to_json().encode()), mode=0o600
    )


def remembered(folder: Path) -> BackboneCard | None:
    """Return the backbone that was sent last, if its weights are still here."""
    try:
        card = read_card((folder / BACKBONE_FILE).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, BackboneError):
        return None
    return card if store.has(card.sha256) else None


def _check_size(card: BackboneCard, n_bytes: int) -> None:
    try:
        store.root().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(store.root(), error) from error
    missing = n_bytes - _arrived(card.sha256, n_bytes)
    room = shutil.disk_usage(store.root()).free - _RESERVE
    if 0 < n_bytes <= LARGEST and missing <= room:
        return
    raise BackboneError(
        f"A backbone of {n_bytes:,} bytes was offered; at most {LARGEST:,} are taken, and the disk "
        f"of '{store.root()}' has room for {max(room, 0):,}.",
        next_step="Free some space, or set FEDTL_HOME to a larger disk.",
        code="backbone.too-large",
    )


def _offered(sha256: str) -> tuple[BackboneCard, int] | None:
    try:
        told = json.loads((store.folder(sha256) / _OFFER).read_bytes())
        card, n_bytes = read_card(told["card"]), int(told["bytes"])
    except (OSError, ValueError, KeyError, TypeError, BackboneError):
        return None
    return (card, n_bytes) if card.sha256 == sha256 else None


def _arrived(sha256: str, n_bytes: int) -> int:
    """Return the size of what has arrived; what cannot be a part of the offer is deleted."""
    path = store.part(sha256)
    try:
        size = path.stat().st_size
        if size <= n_bytes:
            return size
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(path, error) from error
    return 0


def _drop_others(sha256: str) -> None:
    """Delete what has arrived of other backbones: one transfer at a time, so that disks stay."""
    for path in store.root().glob("*/weights.part"):
        if path.parent.name != sha256:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error
