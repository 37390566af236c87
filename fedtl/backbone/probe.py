"""Whether weights from elsewhere are what their card says: found by using them."""

from __future__ import annotations

from fedtl.backbone.card import BackboneCard
from fedtl.errors import BackboneError


def check_fits(card: BackboneCard) -> None:
    """Load a backbone and send two random pictures through it.

    Raises
    ------
    BackboneError
        ``backbone.unknown``: the installed timm has no such architecture. ``backbone.missing``,
        ``backbone.tampered``: see :func:`fedtl.backbone.store.get`. ``backbone.invalid``: the
        weights do not fit it, or give other features than the card says.
    """
    import torch

    from fedtl.backbone.architectures import check_known
    from fedtl.backbone.model import build

    check_known(card.architecture)
    x = torch.randn(2, 3, card.image_size, card.image_size, generator=torch.Generator())
    try:
        backbone = build(card)
        with torch.inference_mode():
            widths = tuple(int(found.shape[1]) for found in backbone.tapped(x))
            finite = bool(backbone(x).isfinite().all())
    except BackboneError as error:
        if error.code in ("backbone.missing", "backbone.tampered"):
            raise
        raise _invalid(card, error.problem) from error
    except Exception as error:  # of many kinds, as anything may be in the file
        raise _invalid(card, f"{type(error).__name__}: {error}") from error
    if widths != card.tap_widths or not finite:
        raise _invalid(card, f"features of {widths} numbers{'' if finite else ', not all finite'}")


def _invalid(card: BackboneCard, problem: str) -> BackboneError:
    return BackboneError(
        f"The weights {card.sha256[:16]}... are not those of a backbone as their card says: "
        f"{' '.join(problem.split())[:300]}.",
        next_step="Ask the coordinator to resolve the backbone again and send that.",
    )
