"""Sums over a site's examples that a strategy may ask for, by the mechanism of their release.

Every one is additive: the sum over sites is that of the pooled data, for any split and any order.
Under a plan each example (or group, whose examples count 1 / m each) is clipped, so that it moves
the sums by at most a known length, and Gaussian noise is added; where sites share the noise out,
the sums are returned without it, and :mod:`fedtl.site.seal` adds the site's share.

============== =========================================== =====================================
mechanism      arrays                                      L2 sensitivity of one unit
============== =========================================== =====================================
statistics     ``gram`` [d (d + 1) / 2]: Σ x xᵀ,           sqrt(2), of (gram / R², moment / R)
               ``moment`` [d, C]: Σ x one_hot(y)ᵀ
mean           ``sum`` [d - 1]: Σ u                        R
covariance     ``gram`` [d (d - 1) / 2]: Σ u uᵀ            R²
sums           ``sum`` [k]: Σ rows of a LocalStatistic     R
============== =========================================== =====================================

``x`` are the features, ``u`` the same without the bias, R the clip norm. Gram matrices are upper
triangles by rows, and their noise is (Z + Zᵀ) / 2: off-diagonal pairs count twice in the norm and
carry the deviation divided by sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtl.errors import FedtlError, PrivacyError
from fedtl.privacy.discrete import enlarged, whole_noise
from fedtl.privacy.plan import Release
from fedtl.train.batches import shares
from fedtl.train.fit import Examples
from fedtl.train.objectives.statistic import LocalStatistic
from fedtl.train.products import Gram, in_double
from fedtl.train.streams import Streams
from fedtl.train.threads import LARGE, one_thread
from fedtl.types import Arrays

Sums = dict[str, NDArray[np.float64]]
Deviations = Mapping[str, float | NDArray[np.float64]]

MECHANISMS = ("statistics", "mean", "covariance", "sums")
_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 4096, 1 << 23
_FINER = 28
"""Bits by which a step is finer than the noise: fine beside it, and sums fit into 63 bits."""


def released(
    examples: Examples,
    classes: int,
    *,
    mechanism: str,
    release: Release | None = None,
    streams: Streams | None = None,
    statistic: LocalStatistic | None = None,
    sent: Arrays | None = None,
) -> Sums:
    """Compute a site's sums in float64 as they may leave the site, or be sealed there.

    Parameters
    ----------
    examples : Examples
        ``n`` examples with ``d`` features.
    mechanism : {"statistics", "mean", "covariance", "sums"}
        What is summed.
    release : Release, optional
        Clips to its ``clip_norm`` and adds its noise; without one, the plain sums.
    streams : Streams, optional
        Where the noise comes from.
    statistic : LocalStatistic, optional
        What ``sums`` are of.
    sent : mapping of str to NDArray, optional
        What the statistic wants beside (:func:`fedtl.train.objectives.check_beside`).

    Raises
    ------
    PrivacyError
        The release covers something else, or there are no streams for its noise.
    """
    out = sums(
        examples, classes, mechanism=mechanism, release=release, statistic=statistic, sent=sent
    )
    if release is None:
        return out
    needed = deviations(release, examples.x.shape[1], mechanism)
    if release.honest_sites:
        return out
    if streams is None:
        raise PrivacyError(
            "A private release of sums needs streams for its noise.",
            next_step="Pass the site's streams.",
        )
    if streams.seeded:  # of a simulation, which protects nobody and may be quick
        for name, deviation in needed.items():
            out[name] += streams.normal(out[name].shape).double().numpy() * deviation
        return out
    return _with_whole_noise(out, needed, release.noise_multiplier, streams)


def _with_whole_noise(
    exact: Sums, needed: Deviations, noise_multiplier: float, streams: Streams
) -> Sums:
    """Round sums to steps and add whole-number noise: floating-point noise shows what it hides.

    Whoever knows all records but one can try whether what is left without them is a number that a
    floating-point sampler can return (Mironov 2012).
    """
    wide = {
        name: np.broadcast_to(np.asarray(needed[name], np.float64), values.shape).ravel()
        for name, values in exact.items()
    }
    step = 2.0 ** (math.floor(math.log2(min(float(d.min()) for d in wide.values()))) - _FINER)
    factor = enlarged(list(wide.values()), step, noise_multiplier)
    out = {}
    for name, values in exact.items():
        noise = whole_noise(wide[name] * factor, step, streams.words).reshape(values.shape)
        out[name] = (np.rint(values / step).astype(np.int64) + noise).astype(np.float64) * step
    return out


def statistics(
    examples: Examples,
    classes: int,
    *,
    release: Release | None = None,
    streams: Streams | None = None,
) -> Sums:
    """Return what least squares need: :func:`released` of the mechanism ``statistics``."""
    return released(examples, classes, mechanism="statistics", release=release, streams=streams)


def sums(
    examples: Examples,
    classes: int,
    *,
    mechanism: str,
    release: Release | None,
    statistic: LocalStatistic | None = None,
    sent: Arrays | None = None,
) -> Sums:
    """Return a site's sums, clipped if there is a release, without noise."""
    with one_thread(unless=examples.x.numel() > LARGE) as threads:
        if mechanism == "statistics":
            return _statistics(examples, classes, release, threads)
        if mechanism == "sums":
            return _rows(examples, classes, release, statistic, sent or {})
        return _without_bias(examples, mechanism, release, threads)


def _without_bias(
    examples: Examples, mechanism: str, release: Release | None, threads: int
) -> Sums:
    d = examples.x.shape[1] - 1
    total, gram = torch.zeros(d, dtype=torch.float64), Gram(d, threads=threads)
    for x, _, share in _blocks(examples, release):
        u = _clipped(in_double(x)[:, :-1], release)
        if mechanism == "mean":
            total += share @ u
        else:
            gram.add(u.numpy(), share.numpy())
    return {"sum": total.numpy()} if mechanism == "mean" else {"gram": gram.upper()}


def _statistics(examples: Examples, classes: int, release: Release | None, threads: int) -> Sums:
    d = examples.x.shape[1]
    gram, of_class = Gram(d, threads=threads), torch.zeros(classes, d, dtype=torch.float64)
    for x, y, share in _blocks(examples, release):
        rows = _clipped(in_double(x), release)
        gram.add(rows.numpy(), share.numpy())
        of_class.index_add_(0, y, rows if (share == 1).all() else rows * share[:, None])
    return {"gram": gram.upper(), "moment": np.ascontiguousarray(of_class.numpy().T)}


def _rows(
    examples: Examples,
    classes: int,
    release: Release | None,
    statistic: LocalStatistic | None,
    sent: Arrays,
) -> Sums:
    if statistic is None:
        raise PrivacyError(
            "Sums were asked for, and no statistic is named.",
            next_step="Name it in the message: fedtl.wire.objective.with_objective.",
            code="message.invalid",
        )
    size = statistic.size(examples.x.shape[1], classes)
    parts = classes if statistic.by_class else 1
    total, each = torch.zeros(parts, size // parts, dtype=torch.float64), size // parts
    beside = {name: torch.from_numpy(values.copy()).double() for name, values in sent.items()}
    for x, y, share in _blocks(examples, release, max(_NUMBERS_AT_ONCE // max(each, 1), 1)):
        rows = statistic.rows_beside(x.double(), y, classes, beside).double()
        if rows.shape != (len(x), each):
            raise FedtlError(
                f"{type(statistic).__name__}.rows returns the shape {list(rows.shape)} for "
                f"{len(x)} examples of size {each}.",
                next_step="Return one row of the promised size for each example.",
                code="objective.invalid",
            )
        counted = share[None]
        if statistic.by_class:
            counted = torch.nn.functional.one_hot(y, classes).T * share
        total += counted @ _clipped(rows.nan_to_num(0.0, 0.0, 0.0), release)
    return {"sum": total.flatten().numpy()}


def _blocks(
    examples: Examples, release: Release | None, most: int = _ROWS_AT_ONCE
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return blocks of features, labels, and what each row counts."""
    counted, n = shares(examples, release), min(most, _ROWS_AT_ONCE)
    return zip(*(torch.split(t, n) for t in (examples.x, examples.y, counted)), strict=True)


def _clipped(rows: Tensor, release: Release | None) -> Tensor:
    if release is None:
        return rows
    norms = rows.norm(dim=1).clamp_(min=release.clip_norm)
    clipped: Tensor = rows * (release.clip_norm / norms)[:, None]
    return clipped


def deviations(release: Release, width: int, mechanism: str) -> Deviations:
    """Return the standard deviation of the noise on every entry, by array.

    Parameters
    ----------
    width : int
        Features per example, bias feature included.
    mechanism : str
        What is summed.

    Raises
    ------
    PrivacyError
        With code ``plan.mismatch``: the release covers something else.
    """
    if release.mechanism != mechanism or mechanism not in MECHANISMS:
        raise PrivacyError(
            f"A release of {release.mechanism} does not cover {mechanism}.",
            next_step=f"Make a plan with a release of mechanism='{mechanism}'.",
            code="plan.mismatch",
        )
    noise, clip = release.noise_multiplier, release.clip_norm
    if mechanism in ("mean", "sums"):
        return {"sum": noise * clip}
    diagonal = gram_deviation(release)
    if mechanism == "covariance":
        return {"gram": _symmetric(width - 1) * diagonal}
    return {"gram": _symmetric(width) * diagonal, "moment": noise * math.sqrt(2) * clip}


def gram_deviation(release: Release) -> float:
    """Return the standard deviation of the noise on the diagonal of a Gram matrix."""
    joint = math.sqrt(2) if release.mechanism == "statistics" else 1.0
    return release.noise_multiplier * joint * release.clip_norm**2


def _symmetric(d: int) -> NDArray[np.float64]:
    """Return the deviations of an upper triangle of (Z + Zᵀ) / 2."""
    rows, columns = np.triu_indices(d)
    return np.where(rows == columns, 1.0, math.sqrt(0.5))


def shapes(
    mechanism: str, width: int, classes: int, *, size: int = 0
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of a mechanism; ``size`` is that of a scripted statistic."""
    known: dict[str, dict[str, tuple[int, ...]]] = {
        "statistics": {"gram": (math.comb(width + 1, 2),), "moment": (width, classes)},
        "mean": {"sum": (width - 1,)},
        "covariance": {"gram": (math.comb(width, 2),)},
        "sums": {"sum": (size,)},
    }
    return known[mechanism]
