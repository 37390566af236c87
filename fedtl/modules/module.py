"""A finished head that can be loaded anywhere and asked about images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtl.backbone import BackboneCard, open_engine, resolve, store
from fedtl.data.images import Picture
from fedtl.errors import BackboneError, CacheError, FedtlError
from fedtl.features.prepare import prepared_rows
from fedtl.home import write_atomic
from fedtl.types import Arrays


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image: class, its probability, and every class's probability."""

    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Module:
    """A head, the backbone it stands on, and where it comes from.

    Attributes
    ----------
    head : mapping of str to NDArray
        As trained.
    card : BackboneCard
        The backbone, by digest; its weights are found in the store.
    classes : tuple of str
        In the order of the head's outputs.
    provenance : mapping of str to str
        Recipe digest, data digest, privacy plan and whatever else made the head what it is.
    """

    head: Arrays
    card: BackboneCard
    classes: tuple[str, ...]
    provenance: Mapping[str, str]

    def predict(self, pictures: Sequence[Picture], *, engine: str = "auto") -> list[Prediction]:
        """Classify pictures, running the backbone on them."""
        import torch

        from fedtl.train.heads import logits

        _bring(self.card)
        with open_engine(self.card, engine) as run:
            features = run(self.card.transform.apply_batch(pictures))
        x = torch.from_numpy(prepared_rows(features))
        probabilities = torch.softmax(logits(self.head, x), dim=1).numpy()
        return [self._prediction(row) for row in probabilities]

    def _prediction(self, row: np.ndarray[Any, np.dtype[np.float32]]) -> Prediction:
        best = int(row.argmax())
        spread = {name: float(p) for name, p in zip(self.classes, row, strict=True)}
        return Prediction(self.classes[best], float(row[best]), spread)


def _bring(card: BackboneCard) -> None:
    """Fetch the backbone again on a machine that does not have it, where that can be done.

    Raises
    ------
    BackboneError
        What can be had under this name is not the backbone that the head was trained on.
    """
    if store.has(card.sha256):
        return
    found = resolve(card.architecture, taps=card.taps, image_size=card.image_size)
    if found.digest() != card.digest():
        raise BackboneError(
            f"The head was trained on {card.architecture} with the weights {card.sha256[:16]}..., "
            f"here are {found.sha256[:16]}...",
            next_step="Bring the run's weight file: `fedtl features SOURCE --weights FILE`.",
            code="backbone.digest",
        )


def save_module(folder: Path, module: Module) -> None:
    """Write ``head.safetensors`` and ``module.json`` into a folder, atomically each."""
    from safetensors.numpy import save

    tensors = save({name: np.ascontiguousarray(v) for name, v in module.head.items()})
    meta = {
        "classes": list(module.classes),
        "backbone": json.loads(module.card.to_json()),
        "provenance": dict(module.provenance),
    }
    write_atomic(folder / "head.safetensors", lambda file: file.write(tensors))
    write_atomic(
        folder / "module.json", lambda file: file.write(json.dumps(meta, indent=1).encode())
    )


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)


def load_module(folder: Path) -> Module:
    """Read a module.

    Raises
    ------
    CacheError
        There is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from fedtl.train.heads import check_head

    if not (folder / "module.json").is_file():
        raise CacheError(
            f"There is no finished head in '{folder}'.",
            next_step="Name a run folder such as runs/digits-...; an unfinished run is completed "
            "by `fedtl simulate --resume RUN`.",
        )
    try:
        meta = json.loads((folder / "module.json").read_text("utf-8"))
        module = Module(
            head=load_file(folder / "head.safetensors"),
            card=BackboneCard.from_json(json.dumps(meta["backbone"])),
            classes=tuple(str(c) for c in meta["classes"]),
            provenance={str(k): str(v) for k, v in meta["provenance"].items()},
        )
        check_head(module.head, width=module.card.width + 1, classes=len(module.classes))
    except (OSError, SafetensorError, FedtlError, *_MALFORMED) as error:
        raise CacheError(
            f"The module in '{folder}' is damaged.", next_step="Write it again with --resume."
        ) from error
    return module
