"""The backbone as a torch module: frozen, in eval mode for good, one feature vector per picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedtl.backbone import architectures, store, taps
from fedtl.backbone.card import BackboneCard
from fedtl.errors import BackboneError


class Backbone(nn.Module):
    """A frozen timm model read at its taps: float32 [n, 3, size, size] -> [n, width].

    Law: nothing moves. No parameter asks for a gradient, and neither :meth:`train` nor a
    ``train()`` of a module inside can bring a normalisation layer to update its running statistics,
    which would carry a site's private averages out of the house.

    Parameters
    ----------
    body : nn.Module
        A timm model without classifier.
    tap_names : Sequence of str
        See :mod:`fedtl.backbone.taps`.
    """

    def __init__(self, body: Any, tap_names: Sequence[str]) -> None:
        super().__init__()
        self.body = body.requires_grad_(False)
        self._taps = taps.parse(tap_names, taps.stages(body))
        self._stages = sorted({tap.stage for tap in self._taps} - {-1})
        super().train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, whatever is asked."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of transformed pictures, in the order of the taps."""
        return torch.cat(self.tapped(x), dim=1)

    def tapped(self, x: Tensor) -> list[Tensor]:
        """Return one tensor [n, width of the tap] per tap."""
        self.body.eval()  # a module inside may have been switched behind this one's back
        final, maps = self._run(x)
        return [
            self.body.forward_head(final, pre_logits=True).flatten(1)
            if tap.stage < 0
            else pool(maps[self._stages.index(tap.stage)], tap.grid)
            for tap in self._taps
        ]

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not self._stages:
            return self.body.forward_features(x), []
        final, maps = self.body.forward_intermediates(x, indices=self._stages)
        return final, maps


def pool(maps: Tensor, grid: int) -> Tensor:
    """Average [n, c, h, w] over a grid x grid of cells and flatten to [n, c * grid * grid].

    The numbers of ``adaptive_avg_pool2d`` from plain slices, which every ONNX exporter takes.
    """
    height, width = int(maps.shape[2]), int(maps.shape[3])
    cells = [
        maps[:, :, top:bottom, left:right].mean(dim=(2, 3))
        for top, bottom in _edges(height, grid)
        for left, right in _edges(width, grid)
    ]
    return torch.stack(cells, dim=2).flatten(1)


def _edges(length: int, grid: int) -> list[tuple[int, int]]:
    return [(i * length // grid, -(-(i + 1) * length // grid)) for i in range(grid)]


def build(card: BackboneCard) -> Backbone:
    """Return the backbone of a card with its weights from the store.

    Raises
    ------
    BackboneError
        The weights are missing, were tampered with, or do not fit the card.
    """
    from safetensors.torch import load

    body = architectures.create(card.architecture, pretrained=False, num_classes=0)
    tensors = load(store.get(card.sha256))
    try:
        body.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise BackboneError(
            f"The weights {card.sha256} do not fit {card.architecture!r}: {error}",
            next_step="Resolve the backbone again with the installed timm.",
            code="backbone.weights",
        ) from error
    resize(body, card.image_size)
    return Backbone(body, card.taps)


def resize(body: Any, image_size: int) -> None:
    """Prepare a loaded model for another picture size, where its weights depend on it.

    Raises
    ------
    BackboneError
        The architecture takes no such size.
    """
    native = body.pretrained_cfg["input_size"][1]
    if image_size == native or not body.pretrained_cfg.get("fixed_input_size"):
        return
    try:
        body.set_input_size(img_size=(image_size, image_size))
    except (AttributeError, AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise unfit(body, image_size) from error


def unfit(body: Any, image_size: int) -> BackboneError:
    """Return the error for a picture size an architecture cannot take."""
    config = body.pretrained_cfg
    return BackboneError(
        f"image_size {image_size} does not suit {config['architecture']!r}.",
        next_step=f"Use its own size, {config['input_size'][1]}, or a multiple of 32.",
        code="backbone.image_size",
    )
