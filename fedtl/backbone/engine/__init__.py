"""Engines: ways to run a frozen backbone on a batch; all give the same numbers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from sys import platform
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fedtl.backbone.card import BackboneCard
from fedtl.errors import BackboneError, nearest

_log = logging.getLogger(__name__)

Batch = NDArray[np.float32]
Run = Callable[[Batch], Batch]


@dataclass(frozen=True, slots=True)
class Engine:
    """An opened backbone: float32 [n, 3, size, size] -> float32 [n, width].

    Law: every engine gives the numbers of ``reference`` to 1e-4 of their largest, in float32; the
    same numbers each time; for a picture the same numbers in any batch; and leaves its input alone.

    Parameters
    ----------
    name : str
        The kind, with device and precision where they matter.
    image_size, width : int
        Side of the pictures, and length of a feature vector.
    run : Callable
        Does the work for n >= 1 pictures.
    """

    name: str
    image_size: int
    width: int
    run: Run

    def __call__(self, x: Batch) -> Batch:
        """Return the features of transformed pictures.

        Raises
        ------
        BackboneError
            ``x`` is not float32 [n, 3, size, size].
        MemoryError
            The device's memory does not hold so many pictures; fewer may fit.
        """
        shape = (3, self.image_size, self.image_size)
        if x.ndim != 4 or x.shape[1:] != shape or x.dtype != np.float32:
            raise BackboneError(
                f"The engine '{self.name}' was given {x.dtype} {list(x.shape)}, "
                f"it takes float32 [n, 3, {self.image_size}, {self.image_size}].",
                next_step="Use the transform of the backbone's card.",
                code="backbone.shape",
            )
        if len(x) == 0:
            return np.empty((0, self.width), dtype=np.float32)
        return self.run(np.ascontiguousarray(x))

    def close(self) -> None:
        """Let go of the model; the engine cannot be called any more."""
        object.__setattr__(self, "run", _closed)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _closed(x: Batch) -> Batch:
    raise BackboneError("The engine is closed.", next_step="Open it again with `open_engine`.")


Opener = Callable[[BackboneCard, int | None, str], tuple[str, Run]]


def _lazily(module: str, function: str) -> Opener:
    def opener(card: BackboneCard, threads: int | None, precision: str) -> tuple[str, Run]:
        found = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        name, run = found(card, threads, precision)
        return name, run

    return opener


#: Engines by name; each imports its library when it is opened.
ENGINES: dict[str, Opener] = {
    "onnx": _lazily("onnx", "open_onnx"),
    "torch": _lazily("eager", "open_torch"),
    "reference": _lazily("eager", "open_reference"),
}
PRECISIONS = ("fp32", "bf16")


def open_engine(
    card: BackboneCard, kind: str = "auto", *, threads: int | None = None, precision: str = "fp32"
) -> Engine:
    """Open a backbone for extraction.

    Parameters
    ----------
    card : BackboneCard
        From :func:`fedtl.backbone.resolve`; its weights must be in the store.
    kind : str
        ``"onnx"`` (ONNX Runtime on the CPU; a warm one imports neither torch nor timm), ``"torch"``
        (CUDA, MPS, or the CPU), ``"reference"`` (plain float32 torch on the CPU), or ``"auto"``:
        torch where there is an accelerator or bf16 is asked for, else onnx, else torch.
    threads : int, optional
        CPU threads; all cores by default.
    precision : str
        ``"fp32"``, or ``"bf16"`` (torch only; other numbers come out).

    Raises
    ------
    BackboneError
        ``kind`` or ``precision`` is unknown, they do not go together, or the weights are unusable.
    """
    for argument, value, known in (
        ("kind", kind, ["auto", *ENGINES]),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise BackboneError(f"{argument} is {value!r}.", next_step=nearest(value, known))
    if kind != "auto":
        name, run = ENGINES[kind](card, threads, precision)
    elif precision != "fp32" or _has_accelerator():
        name, run = ENGINES["torch"](card, threads, precision)
    else:
        name, run = _onnx_or_torch(card, threads)
    return Engine(name, card.image_size, card.width, run)


def _onnx_or_torch(card: BackboneCard, threads: int | None) -> tuple[str, Run]:
    try:
        return ENGINES["onnx"](card, threads, "fp32")
    except BackboneError as error:
        if error.code != "backbone.export":
            raise
        _log.warning("%s Features are extracted with torch instead, which is slower.", error)
        return ENGINES["torch"](card, threads, "fp32")


def _has_accelerator() -> bool:
    """Ask torch only where the machine shows an accelerator, because the import takes seconds."""
    if platform != "darwin" and not Path("/dev/nvidiactl").exists():
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
