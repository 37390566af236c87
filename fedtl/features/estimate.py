"""What making the features of a data set will take, found out on a few pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fedtl.backbone import BackboneCard, open_engine
from fedtl.data.manifest import Manifest
from fedtl.features.cache import FeatureCache

_SAMPLE = 32


def still_missing(
    manifest: Manifest, card: BackboneCard, *, precision: str = "fp32"
) -> tuple[list[int], int]:
    """Return the first row of every picture that is not cached, and how many pictures are."""
    key = card.digest() + ("" if precision == "fp32" else f"-{precision}")
    first = {digest.tobytes(): row for row, digest in reversed([*enumerate(manifest.digests)])}
    rows = sorted(first.values())
    found = FeatureCache(key, card.width).find(manifest.digests[rows])
    missing = [row for row, at in zip(rows, found.tolist(), strict=True) if at < 0]
    return missing, len(rows) - len(missing)


def seconds_needed(
    manifest: Manifest,
    card: BackboneCard,
    missing: Sequence[int],
    *,
    engine: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
) -> float:
    """Measure a batch and scale it up: decoding and the backbone go on side by side.

    Parameters
    ----------
    missing : sequence of int
        Rows that have to be made; nothing is kept of those that are measured.
    engine, precision, threads
        See :func:`fedtl.backbone.open_engine`.
    """
    if not missing:
        return 0.0
    sample = missing[:_SAMPLE]
    clock = [time.perf_counter()]
    pictures = card.transform.apply_batch([manifest.source.read(row) for row in sample])
    clock.append(time.perf_counter())
    with open_engine(card, engine, precision=precision, threads=threads) as opened:
        opened(pictures)  # the first call plans its memory
        clock.append(time.perf_counter())
        opened(pictures)
        clock.append(time.perf_counter())
    reading, computing = clock[1] - clock[0], clock[3] - clock[2]
    return max(reading, computing) / len(sample) * len(missing)
