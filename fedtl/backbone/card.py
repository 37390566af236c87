"""What identifies a backbone: everything that decides which features it makes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from fedtl.backbone.transform import CROP_MODES, INTERPOLATIONS, Transform, Triple
from fedtl.errors import BackboneError, nearest

#: Sides of a picture in pixels that make sense; larger ones would only exhaust the memory.
SIZES = range(8, 4097)

_FEATURE_FIELDS = (
    *("architecture", "sha256", "taps", "image_size"),
    *("mean", "std", "interpolation", "crop_pct", "crop_mode"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneCard:
    """A frozen backbone in words and numbers; small, public, and enough to open an engine.

    Parameters
    ----------
    architecture : str
        timm's name.
    sha256 : str
        Digest of the content of ``weights.safetensors``, hexadecimal.
    source, licence : str
        Where the weights came from, and under which licence; never a path.
    mean, std : tuple of float
        Normalisation per channel, on the scale 0..1.
    interpolation, crop_pct, crop_mode : str, float, str
        As in :class:`~fedtl.backbone.transform.Transform`.
    native_size, image_size : int
        Side for which the weights were trained, and side that is used, pixels.
    taps : tuple of str
        Where features are read, see :mod:`fedtl.backbone.taps`.
    tap_widths : tuple of int
        Numbers each tap gives.
    timm_version : str
        The timm that made this card.
    """

    architecture: str
    sha256: str
    source: str
    licence: str
    mean: Triple
    std: Triple
    interpolation: str
    crop_pct: float
    crop_mode: str
    native_size: int
    image_size: int
    taps: tuple[str, ...]
    tap_widths: tuple[int, ...]
    timm_version: str

    @property
    def width(self) -> int:
        """Length of one feature vector."""
        return sum(self.tap_widths)

    @property
    def transform(self) -> Transform:
        """The transform that belongs to the weights."""
        return Transform(
            size=self.image_size,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_mode=self.crop_mode,
        )

    def digest(self) -> str:
        """Return 32 hexadecimal digits that change whenever the features would.

        Source, licence and versions are left out: they do not touch a feature.
        """
        parts = {name: getattr(self, name) for name in _FEATURE_FIELDS}
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> str:
        """Return the card as JSON; :meth:`from_json` is its inverse."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> BackboneCard:
        """Read a card that may come from outside, checking every field.

        Raises
        ------
        BackboneError
            A field is missing, unknown, of the wrong type or out of range.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _refuse("it is not JSON") from error
        if not isinstance(raw, dict):
            raise _refuse("it is not a JSON object")
        hints = get_type_hints(cls)
        if wrong := sorted(raw.keys() ^ hints.keys()):
            raise _refuse(f"fields {wrong} are missing or unknown")
        card = cls(**{name: _typed(name, raw[name], hint) for name, hint in hints.items()})
        check_card(card)
        return card


def check_card(card: BackboneCard) -> None:
    """Refuse a card whose values cannot be used.

    Raises
    ------
    BackboneError
        Names the first field that is out of range.
    """
    if card.interpolation not in INTERPOLATIONS:
        hint = nearest(card.interpolation, INTERPOLATIONS)
        raise _refuse(f"interpolation {card.interpolation!r} is unknown. {hint}")
    rules = {
        "sha256": re.fullmatch("[0-9a-f]{64}", card.sha256) is not None,
        "crop_mode": card.crop_mode in CROP_MODES,
        "crop_pct": 0 < card.crop_pct <= 1,
        "mean": all(map(math.isfinite, card.mean)),
        "image_size": card.image_size in SIZES,
        "native_size": card.native_size in SIZES,
        "taps": len(card.taps) > 0,
        "tap_widths": len(card.tap_widths) == len(card.taps) and min(card.tap_widths) > 0,
        "std": all(math.isfinite(spread) and spread > 0 for spread in card.std),
    }
    if bad := [name for name, good in rules.items() if not good]:
        raise _refuse(f"{bad[0]} is {getattr(card, bad[0])!r}")


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Check a JSON value against a field's type; lists become tuples."""
    if kinds := get_args(hint):
        fixed = Ellipsis not in kinds
        if not isinstance(value, list) or (fixed and len(value) != len(kinds)):
            raise _refuse(f"{name} is {value!r}")
        return tuple(_typed(name, item, kinds[0]) for item in value)
    number = hint is float and isinstance(value, int | float)
    if isinstance(value, bool) or not (number or isinstance(value, hint)):
        raise _refuse(f"{name} is {value!r}, not {hint.__name__}")
    try:
        return hint(value)
    except OverflowError as error:
        raise _refuse(f"{name} is too large") from error


def _refuse(problem: str) -> BackboneError:
    return BackboneError(
        f"The backbone card cannot be used: {problem}.",
        next_step="Resolve the backbone again with `fedtl.backbone.resolve`, or ask for another.",
        code="backbone.card",
    )
