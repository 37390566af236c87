"""Smaller updates: top-k, quantised and low-rank moves of a head, and how they are read again.

A site sends what its head moved by, compressed, and remembers what got lost for the next round
(error feedback: Seide et al. 2014; Karimireddy et al., ICML 2019, arXiv:1901.09847, algorithm 2).
Compression comes after clipping and noise and costs no privacy.

=========== ==================================================== ================================
kind        what is sent of a move of n numbers                   source
=========== ==================================================== ================================
top_k       the ``share`` of largest size: 8 bytes each           Stich et al. 2018,
                                                                  arXiv:1809.07599
quantise    ``bits`` of each, in steps of the largest (1 bit:     Alistarh et al. 2017,
            signs and their mean size)                            arXiv:1610.02132, rounded to
                                                                  the nearest
low_rank    ``rank`` columns P [rows, r] and Q [columns, r] of    Vogels et al. 2019,
            every matrix, the rest as it is                       arXiv:1905.13727, algorithm 1
=========== ==================================================== ================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import FedtlError, RecipeError, nearest
from fedtl.types import Arrays

KINDS = ("top_k", "quantise", "low_rank")
BITS = (1, 2, 4, 8)
LOST, BASIS = "lost", "basis"
"""Prefixes of what a site remembers: what was not sent, and the low-rank basis."""
_SENT = ("float32", "uint32", "uint8")

Shapes = Mapping[str, tuple[int, ...]]
Sent = dict[str, NDArray[Any]]
Kept = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Compression:
    """How moves are compressed.

    Attributes
    ----------
    kind : {"top_k", "quantise", "low_rank"}
    share : float
        For ``top_k``: of all numbers of a move, in (0, 1].
    bits : {1, 2, 4, 8}
        For ``quantise``.
    rank : int
        For ``low_rank``, from 1.
    """

    kind: str
    share: float = 0.05
    bits: int = 8
    rank: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RecipeError(
                f"compress.kind = {self.kind!r} is unknown.", next_step=nearest(self.kind, KINDS)
            )
        if not 0 < self.share <= 1 or self.bits not in BITS or self.rank < 1:
            raise RecipeError(
                f"compress.share = {self.share}, bits = {self.bits}, rank = {self.rank}: share is "
                f"in (0, 1], bits one of {', '.join(map(str, BITS))}, rank from 1.",
                next_step="Correct [compress] in the recipe.",
            )

    def to_json(self) -> str:
        """Return it as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Compression:
        """Read it; anything that is not exactly a compression is refused.

        Raises
        ------
        FedtlError
            With code ``message.invalid``.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError, RecipeError) as error:
            raise FedtlError(
                "The message asks for no compression that is known.", code="message.invalid"
            ) from error


def compress(move: Arrays, how: Compression, memory: Arrays) -> tuple[Sent, Kept]:
    """Compress what a head moved by, together with what was lost before.

    Parameters
    ----------
    move : mapping of str to NDArray
        float32, by the head's names.
    memory : mapping of str to NDArray
        What the call before returned; empty at first.

    Returns
    -------
    tuple
        What is sent, for :func:`expand`, and what is to be remembered.
    """
    whole = {n: np.asarray(v + memory.get(f"{LOST}/{n}", 0), np.float32) for n, v in move.items()}
    shapes = {name: values.shape for name, values in whole.items()}
    sent, basis = _ENCODERS[how.kind](whole, how, memory)
    read = expand(sent, how, shapes)
    lost = {f"{LOST}/{name}": values - read[name] for name, values in whole.items()}
    return sent, {**lost, **basis}


def expand(sent: Mapping[str, NDArray[Any]], how: Compression, shapes: Shapes) -> Arrays:
    """Return the move that was sent, which may come from anyone.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of the head that was trained.

    Raises
    ------
    FedtlError
        With code ``update.shape``: not what such a compression of such a head can be.
    """
    try:
        found = _DECODERS[how.kind](sent, how, shapes)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise _wrong() from error
    if {name: values.shape for name, values in found.items()} != dict(shapes):
        raise _wrong()
    return found


def dtypes() -> tuple[str, ...]:
    """Return the dtypes of what is sent."""
    return _SENT


def _top_k(whole: Arrays, how: Compression, memory: Arrays) -> tuple[Sent, Kept]:
    flat = np.concatenate([values.ravel() for values in whole.values()])
    k = _kept(len(flat), how)
    at = np.sort(np.argpartition(np.abs(flat), len(flat) - k)[len(flat) - k :])
    return {"values": flat[at], "at": at.astype(np.uint32)}, {}


def _from_top_k(sent: Mapping[str, NDArray[Any]], how: Compression, shapes: Shapes) -> Arrays:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    n = sum(sizes.values())
    values, at = _of(sent, "values", "float32"), _of(sent, "at", "uint32")
    if set(sent) != {"values", "at"} or values.shape != at.shape or len(values) != _kept(n, how):
        raise _wrong()
    whole = at.astype(np.int64)
    if (np.diff(whole) <= 0).any() or whole[-1] >= n:
        raise _wrong()
    flat = np.zeros(n, np.float32)
    flat[whole] = values
    return _cut(flat, shapes)


def _kept(n: int, how: Compression) -> int:
    return max(1, math.ceil(how.share * n))


def _quantise(whole: Arrays, how: Compression, memory: Arrays) -> tuple[Sent, Kept]:
    sent: Sent = {}
    for name, values in whole.items():
        sizes = np.abs(values)
        # of signs alone, the mean loses least (Karimireddy et al. 2019, section 2)
        top = float(sizes.mean() if how.bits == 1 else sizes.max()) if values.size else 0.0
        levels = 2**how.bits - 1
        share = (values.ravel() / top + 1) / 2 if top else np.full(values.size, 0.5)
        codes = np.rint(share.clip(0, 1) * levels).astype(np.uint8)
        sent[f"top/{name}"] = np.array([top], np.float32)
        sent[f"codes/{name}"] = _packed(codes, how.bits)
    return sent, {}


def _from_quantised(sent: Mapping[str, NDArray[Any]], how: Compression, shapes: Shapes) -> Arrays:
    if set(sent) != {f"{what}/{name}" for what in ("top", "codes") for name in shapes}:
        raise _wrong()
    found = {}
    for name, shape in shapes.items():
        n = math.prod(shape)
        top, packed = _of(sent, f"top/{name}", "float32"), _of(sent, f"codes/{name}", "uint8")
        if top.shape != (1,) or packed.shape != (-(-n * how.bits // 8),):
            raise _wrong()
        share = _unpacked(packed, how.bits, n) / np.float32(2**how.bits - 1)
        found[name] = ((2 * share - 1) * top[0]).astype(np.float32).reshape(shape)
    return found


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    each = np.unpackbits(codes[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(each.ravel())


def _unpacked(packed: NDArray[np.uint8], bits: int, n: int) -> NDArray[np.float32]:
    each = np.unpackbits(packed)[: n * bits].reshape(n, bits)
    places = 2 ** np.arange(bits - 1, -1, -1)
    return (each @ places).astype(np.float32)


def _low_rank(whole: Arrays, how: Compression, memory: Arrays) -> tuple[Sent, Kept]:
    """One step of the power iteration from the last round's basis."""
    sent: Sent = {}
    basis: dict[str, NDArray[np.float32]] = {}
    for name, values in whole.items():
        if values.ndim < 2 or min(values.shape) <= how.rank:
            sent[f"whole/{name}"] = values
            continue
        start = memory.get(f"{BASIS}/{name}")
        if start is None or start.shape != (values.shape[1], how.rank):
            start = np.random.default_rng(0).normal(size=(values.shape[1], how.rank))
        left, _ = np.linalg.qr(values @ start.astype(np.float32))
        right = (values.T @ left).astype(np.float32)
        sent[f"left/{name}"] = left.astype(np.float32)
        sent[f"right/{name}"] = basis[f"{BASIS}/{name}"] = right
    return sent, basis


def _from_low_rank(sent: Mapping[str, NDArray[Any]], how: Compression, shapes: Shapes) -> Arrays:
    found: dict[str, NDArray[np.float32]] = {}
    names = set()
    for name, shape in shapes.items():
        if len(shape) < 2 or min(shape) <= how.rank:
            found[name] = _of(sent, f"whole/{name}", "float32")
            names.add(f"whole/{name}")
            continue
        left, right = (_of(sent, f"{side}/{name}", "float32") for side in ("left", "right"))
        if left.shape != (shape[0], how.rank) or right.shape != (shape[1], how.rank):
            raise _wrong()
        found[name] = (left @ right.T).astype(np.float32)
        names |= {f"left/{name}", f"right/{name}"}
    if set(sent) != names:
        raise _wrong()
    return found


def _of(sent: Mapping[str, NDArray[Any]], name: str, dtype: str) -> NDArray[Any]:
    values = sent[name]
    if str(values.dtype) != dtype:
        raise _wrong()
    return values


def _cut(flat: NDArray[np.float32], shapes: Shapes) -> Arrays:
    found, start = {}, 0
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        found[name] = flat[start:end].reshape(shape)
        start = end
    return found


def _wrong() -> FedtlError:
    return FedtlError(
        "A compressed update is not one of the head that was sent.", code="update.shape"
    )


_ENCODERS = {"top_k": _top_k, "quantise": _quantise, "low_rank": _low_rank}
_DECODERS = {"top_k": _from_top_k, "quantise": _from_quantised, "low_rank": _from_low_rank}
