"""The backbone store: weights by the digest of their content, and which request they answered."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fedtl.backbone.card import BackboneCard
from fedtl.errors import BackboneError
from fedtl.home import home, unwritable, write_atomic

#: How the ``source`` of weights given by hand begins; a plain name never finds those.
BY_HAND = "file "


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asked for: the key under which the answering card is remembered."""

    name: str
    weights: str
    taps: tuple[str, ...]
    image_size: int

    def key(self) -> str:
        """Return the file name of the answer; it changes with the installed timm."""
        versioned = {**asdict(self), "timm": importlib.metadata.version("timm")}
        return hashlib.sha256(json.dumps(versioned).encode()).hexdigest()[:32]


def root() -> Path:
    """Return the folder of the store."""
    return home() / "backbones"


def folder(sha256: str) -> Path:
    """Return the folder of one set of weights, which need not exist.

    Raises
    ------
    BackboneError
        ``sha256`` is not 64 hexadecimal digits, so it could name a place outside the store.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BackboneError(
            f"sha256 {sha256[:80]!r} is not a digest of 64 hexadecimal digits.",
            next_step="Take it from a backbone card.",
        )
    return root() / sha256


def put(weights: bytes) -> str:
    """Store the bytes of a safetensors file, once, and return their digest."""
    sha256 = hashlib.sha256(weights).hexdigest()
    path = folder(sha256) / "weights.safetensors"
    if not path.is_file() or path.read_bytes() != weights:
        write_atomic(path, lambda file: file.write(weights))
    return sha256


def get(sha256: str) -> bytes:
    """Return the bytes stored under a digest, verified.

    Raises
    ------
    BackboneError
        Nothing is stored under it (``backbone.missing``), or the bytes have another digest by now
        (``backbone.tampered``).
    """
    path = folder(sha256) / "weights.safetensors"
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise BackboneError(
            f"The weights {sha256} are not in the store '{root()}'.",
            next_step="Call `fedtl.backbone.resolve` on this machine, or install them.",
            code="backbone.missing",
        ) from error
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise BackboneError(
            f"'{path}' should have SHA-256 {sha256} but has {found}.",
            next_step="Somebody or something changed it: delete its folder and resolve again.",
            code="backbone.tampered",
        )
    return weights


def has(sha256: str) -> bool:
    """Say whether weights are stored under a digest; they are verified when they are read."""
    return (folder(sha256) / "weights.safetensors").is_file()


def install(card: BackboneCard, weights: bytes) -> None:
    """Take over a backbone made elsewhere: its card, and the weights the card names.

    Raises
    ------
    BackboneError
        The weights do not have the card's digest.
    """
    found = hashlib.sha256(weights).hexdigest()
    if found != card.sha256:
        raise BackboneError(
            f"The weights sent with the card of {card.architecture!r} have SHA-256 {found}, "
            f"the card says {card.sha256}.",
            next_step="Ask the server to send the backbone again.",
            code="backbone.tampered",
        )
    put(weights)
    write_card(card)


def part(sha256: str) -> Path:
    """Return the file in which weights arrive from elsewhere, which need not exist."""
    return folder(sha256) / "weights.part"


def adopt(card: BackboneCard) -> None:
    """Take over the weights that arrived in :func:`part`, without reading them into memory.

    Raises
    ------
    BackboneError
        With code ``backbone.tampered``: they do not have the card's digest; they are deleted.
    CacheError
        The store cannot be written.
    """
    arrived = part(card.sha256)
    try:
        if not _is_intact(arrived, card.sha256):
            arrived.unlink(missing_ok=True)
            raise BackboneError(
                f"The weights that were sent for {card.architecture!r} do not have SHA-256 "
                f"{card.sha256}; they were deleted.",
                next_step="Ask the server to send the backbone again.",
                code="backbone.tampered",
            )
        arrived.replace(folder(card.sha256) / "weights.safetensors")
    except OSError as error:
        raise unwritable(arrived, error) from error
    write_card(card)


def intact(sha256: str) -> bool:
    """Say whether weights are stored and still have their digest; reads all of them."""
    try:
        return _is_intact(folder(sha256) / "weights.safetensors", sha256)
    except OSError:
        return False


def _is_intact(path: Path, sha256: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def write_card(card: BackboneCard) -> None:
    """Keep the first card of a set of weights beside them."""
    path = folder(card.sha256) / "card.json"
    if not path.exists():
        write_atomic(path, lambda file: file.write(card.to_json().encode()))


def cards() -> Iterator[BackboneCard]:
    """Yield the card of each stored set of weights, in a fixed order, leaving out damaged ones."""
    for path in sorted(root().glob("*/card.json")):
        try:
            card = BackboneCard.from_json(path.read_bytes())
        except (OSError, BackboneError):
            continue
        if path.parent.name == card.sha256:
            yield card


def find(architecture: str) -> BackboneCard | None:
    """Return the card of stored weights for a plain name; never of weights given by hand."""
    for card in cards():
        official = not card.source.startswith(BY_HAND)
        if card.architecture == architecture and official and has(card.sha256):
            return card
    return None


def remember(request: Request, card: BackboneCard, origin: Path | None) -> None:
    """Note that a request was answered by a card made from the file ``origin``."""
    answer = {"origin": _stamp(origin), "card": card.to_json()}
    path = root() / "index" / f"{request.key()}.json"
    write_atomic(path, lambda file: file.write(json.dumps(answer).encode()))


def recall(request: Request) -> BackboneCard | None:
    """Return the card that answered a request before, unless its file or its weights changed."""
    try:
        answer = json.loads((root() / "index" / f"{request.key()}.json").read_bytes())
        card = BackboneCard.from_json(answer["card"])
        origin = answer["origin"]
        current = _stamp(Path(origin[0])) if origin else None
    except (OSError, ValueError, KeyError, TypeError, BackboneError):
        return None
    return card if current == origin and has(card.sha256) else None


def _stamp(path: Path | None) -> list[str | int] | None:
    """Return path, size and modification time: enough to notice that a file was exchanged."""
    if path is None:
        return None
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]
