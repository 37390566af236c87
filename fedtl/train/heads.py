"""Heads: how they start, what they answer, and how a received one is checked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtl.errors import FedtlError
from fedtl.rng import stream
from fedtl.train.random_features import RANDOM, RandomMap, fits, is_random, random_features
from fedtl.train.whitening import MEAN, PULL, is_whitened, whiten
from fedtl.types import Arrays

_MAPS = (MEAN, PULL, RANDOM)
"""What a head says of the features it looks at; sites do not train it."""


def initial_head(
    kind: str,
    width: int,
    classes: int,
    *,
    hidden: int = 64,
    seed: int = 0,
    directions: int | None = None,
    feature_map: RandomMap | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the head every site starts from.

    What gives the scores starts at zero: under differential privacy the best known start (Mehta et
    al. 2022, arXiv:2205.02973). The hidden layer of an MLP starts uniform in ±1, drawn from the
    run's seed: an example's features have length one for every tap, not every feature.

    Parameters
    ----------
    kind : {"linear", "mlp"}
        Kind of head.
    width : int
        Features per example, bias feature included.
    classes, hidden : int
        Outputs, and units of the MLP's hidden layer.
    directions : int, optional
        Gives a linear head a place for the whitening of its features, in so many directions; it
        starts without any (:mod:`fedtl.train.whitening`).
    feature_map : RandomMap, optional
        Gives a linear head random features to look at (:mod:`fedtl.train.random_features`), drawn
        from the run's seed.

    Examples
    --------
    >>> initial_head("linear", 4, 3)["weight"].shape
    (3, 4)
    """
    if kind == "linear" and feature_map is not None:
        weight = np.zeros((classes, feature_map.dimensions + 1), np.float32)
        return {"weight": weight, RANDOM: feature_map.entry(seed)}
    if kind == "linear":
        head: dict[str, NDArray[np.float32]] = {"weight": np.zeros((classes, width), np.float32)}
        if directions is not None:
            head[MEAN] = np.zeros(width - 1, np.float32)
            head[PULL] = np.zeros((width - 1, min(directions, width - 1)), np.float32)
        return head
    drawn = stream(seed, "head").uniform(-1, 1, (hidden, width))
    return {
        "hidden.weight": drawn.astype(np.float32),
        "hidden.bias": np.zeros(hidden, np.float32),
        "out.weight": np.zeros((classes, hidden), np.float32),
        "out.bias": np.zeros(classes, np.float32),
    }


def trained_part(head: Arrays) -> Arrays:
    """Return what sites train of a head, and answer: all but what it says of its features."""
    return {name: values for name, values in head.items() if name not in _MAPS}


def map_key(head: Arrays) -> tuple[bytes, ...]:
    """Return what tells the features that a head looks at from others; () are the plain ones."""
    made = [head[name].tobytes() for name in _MAPS if name in head]
    return (*made, str(head["weight"].shape[1]).encode()) if made else ()


def mapped(head: Arrays, x: Tensor) -> Tensor:
    """Return plain features ``[n, d]`` as a (checked) head looks at them; often ``x`` itself."""
    if is_random(head):
        return random_features(x, head[RANDOM], head["weight"].shape[1] - 1)
    if is_whitened(head):
        return whiten(x, *(torch.from_numpy(np.array(head[name])) for name in (MEAN, PULL)))
    return x


def features_of(head: Arrays, width: int) -> int:
    """Return how many features, bias included, a head looks at, made from ``width`` of them."""
    return head["weight"].shape[1] if "weight" in head else width


def n_classes(head: Arrays) -> int:
    """Return the number of a head's outputs."""
    return len(head["weight"] if "weight" in head else head["out.bias"])


def logits(head: Arrays, x: Tensor) -> Tensor:
    """Return ``[n, C]`` scores of ``[n, d]`` features."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in head.items()}
    if "weight" in tensors:
        return mapped(head, x) @ tensors["weight"].to(x.device).T
    from fedtl.privacy.opacus_fit import mlp_logits

    return mlp_logits({k: v.to(x.device) for k, v in tensors.items()}, x)


def check_head(head: Arrays, *, width: int, classes: int) -> None:
    """Refuse a received head that is not finite or does not fit the site's features.

    Raises
    ------
    FedtlError
        With code ``head.invalid``.
    """
    names = set(head)
    if names in ({"weight"}, {"weight", MEAN, PULL}):
        good = head["weight"].shape == (classes, width)
        if is_whitened(head):
            good = good and head[MEAN].shape == (width - 1,)
            good = good and head[PULL].ndim == 2 and len(head[PULL]) == width - 1
            good = good and head[PULL].shape[1] < width
    elif names == {"weight", RANDOM}:
        good = fits(head[RANDOM], head["weight"]) and len(head["weight"]) == classes
    elif names == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}:
        hidden = head["hidden.bias"].shape[0] if head["hidden.bias"].ndim else 0
        good = (
            head["hidden.weight"].shape == (hidden, width)
            and head["out.weight"].shape == (classes, hidden)
            and head["out.bias"].shape == (classes,)
        )
    else:
        good = False
    if not good or not all(np.isfinite(v).all() for v in head.values()):
        shapes = {name: tuple(value.shape) for name, value in head.items()}
        raise FedtlError(
            f"The received head {shapes} does not fit {classes} classes and {width} features, or "
            "is not finite.",
            next_step="Server and site must use the same backbone, taps and classes.",
            code="head.invalid",
        )
