"""Engines that run the backbone in torch itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from fedtl.backbone.card import BackboneCard
from fedtl.backbone.engine import Batch, Run
from fedtl.backbone.model import build
from fedtl.errors import BackboneError

_FULL = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
"""How torch's allocators of the CPU and of MPS say so, which raise a plain ``RuntimeError``."""


def open_reference(card: BackboneCard, threads: int | None, precision: str) -> tuple[str, Run]:
    """Open the engine the others are measured against: float32, CPU, nothing clever."""
    if precision != "fp32":
        raise BackboneError("The reference engine is fp32 only.", next_step="Use kind='torch'.")
    backbone = build(card)

    def run(x: Batch) -> Batch:
        with torch.inference_mode(), _threads(threads):
            result: Batch = backbone(torch.tensor(x)).numpy()
            return result

    return "reference", run


def open_torch(card: BackboneCard, threads: int | None, precision: str) -> tuple[str, Run]:
    """Open the backbone on CUDA, on MPS, or channels-last on the CPU."""
    device = _device()
    layout = torch.channels_last
    backbone = build(card).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    half = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")

    def run(x: Batch) -> Batch:
        with torch.inference_mode(), _threads(threads), _full_float32(), half, _memory():
            batch = torch.tensor(x).to(device, memory_format=layout)
            result: Batch = backbone(batch).float().cpu().numpy()
            return result

    return f"torch ({device}, {precision})", run


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Say ``MemoryError`` where torch says so in other words."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or _FULL.search(str(error)):
            raise MemoryError(str(error)[:200]) from error
        raise


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set torch's process-wide number of threads for the length of one call."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _full_float32() -> contextlib.AbstractContextManager[None]:
    """Keep cuDNN from rounding to TF32, which it does by default and which costs three digits."""
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False, deterministic=True
    )
    return flags
