"""Extraction: a manifest and a backbone in, features out; only what is new is computed."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fedtl.backbone import BackboneCard, Engine, open_engine
from fedtl.data.manifest import Manifest, Source
from fedtl.errors import CacheError, DataError
from fedtl.features.cache import FeatureCache
from fedtl.features.fitting import Fitting

FLUSH_ROWS = 2000
FLUSH_SECONDS = 10.0

Progress = Callable[[int, int], object]
_Batch = tuple[NDArray[np.int64], list[str], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Features of ``n`` pictures, in the order of the manifest, on disk.

    Parameters
    ----------
    key : str
        The cache key: backbone digest, and precision where it is not float32.
    digests : NDArray[np.uint8]
        ``[n, 32]``, the manifest's.
    computed, cached : int
        Different pictures that went through the backbone, and that were found in the cache.
    seconds : float
        What it took.
    engine : str
        Name of the engine; empty where nothing was computed.
    notes : Counter
        What the transform did, and to how many rows; for the site's own report.
    """

    key: str
    digests: NDArray[np.uint8]
    computed: int
    cached: int
    seconds: float
    engine: str
    notes: Counter[str]
    _cache: FeatureCache = field(repr=False)
    _rows: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def width(self) -> int:
        """Length of one feature vector."""
        return self._cache.width

    @property
    def x(self) -> NDArray[np.float32]:
        """All features, float32 [n, width]; a read-only map where one block holds them in order."""
        return self._cache.rows(self._rows)

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the features of some rows of the manifest, float32 [len(rows), width]."""
        return self._cache.rows(self._rows[rows])


def extract(
    manifest: Manifest,
    card: BackboneCard,
    *,
    engine: str = "auto",
    batch_size: int = 32,
    precision: str = "fp32",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Features:
    """Return the features of a data set, computing only those the cache does not have.

    What was computed is written every 2,000 pictures or 10 seconds, and when the work is
    interrupted, so the same call goes on where it stopped.

    Parameters
    ----------
    manifest : Manifest
        The pictures.
    card : BackboneCard
        The backbone.
    engine, precision : str
        See :func:`fedtl.backbone.open_engine`. Each precision has a cache of its own.
    batch_size : int
        Pictures per forward pass; fewer, and said so, where the memory does not hold as many.
    threads : int, optional
        CPU threads of the backbone; all cores by default.
    progress : Callable, optional
        Called with the pictures done and to be done after each batch.

    Raises
    ------
    DataError
        A picture cannot be read, or ``batch_size`` is not positive.
    BackboneError
        The engine cannot be opened.
    CacheError
        The cache cannot be written; what it had stays.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}.", next_step="Use 1 or more.")
    began = time.perf_counter()
    key = card.digest() + ("" if precision == "fp32" else f"-{precision}")
    cache = FeatureCache(key, card.width)
    missing, n_distinct = _missing(manifest.digests, cache)
    name = ""
    if len(missing):
        with open_engine(card, engine, threads=threads, precision=precision) as opened:
            name = opened.name
            batches = np.split(missing, range(batch_size, len(missing), batch_size))
            _compute(manifest, card, cache, opened=opened, batches=batches, progress=progress)
    rows = _found(cache, manifest.digests)
    return Features(
        key=key,
        digests=manifest.digests,
        computed=len(missing),
        cached=n_distinct - len(missing),
        seconds=time.perf_counter() - began,
        engine=name,
        notes=Counter(cache.notes(rows)),
        _cache=cache,
        _rows=rows,
    )


def _missing(digests: NDArray[np.uint8], cache: FeatureCache) -> tuple[NDArray[np.int64], int]:
    """Return the first row of each picture that is not cached, and the number of distinct ones."""
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest.tobytes(), row)
    rows = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    return rows[cache.find(digests[rows]) < 0], len(rows)


def _found(cache: FeatureCache, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    rows = cache.find(digests)
    if (rows < 0).any():
        raise CacheError(
            f"{int((rows < 0).sum())} features vanished from '{cache.folder}' while it was in use.",
            next_step="Raise FEDTL_CACHE_GB if another process fills the cache, and run it again.",
            code="cache.lost",
        )
    cache.touch(rows)
    return rows


def _compute(
    manifest: Manifest,
    card: BackboneCard,
    cache: FeatureCache,
    *,
    opened: Engine,
    batches: Sequence[NDArray[np.int64]],
    progress: Progress | None,
) -> None:
    done, total = 0, sum(map(len, batches))
    fitting = Fitting(opened)
    with (
        _Writer(cache, manifest.digests) as writer,
        contextlib.closing(_prefetched(manifest.source, card, batches)) as loaded,
    ):
        for rows, notes, x in loaded:
            writer.write(rows, notes=notes, x=fitting(x))
            done += len(rows)
            if progress is not None:
                progress(done, total)


def _prefetched(
    source: Source, card: BackboneCard, batches: Sequence[NDArray[np.int64]]
) -> Generator[_Batch, None, None]:
    """Yield transformed batches; the next one is made while the caller computes on this one."""
    transform = card.transform

    def load(rows: NDArray[np.int64]) -> _Batch:
        pictures = [source.read(row) for row in rows.tolist()]
        notes = [transform.describe(picture) for picture in pictures]
        return rows, notes, transform.apply_batch(pictures)

    with ThreadPoolExecutor(1, thread_name_prefix="fedtl-decode") as pool:
        upcoming = pool.submit(load, batches[0])
        for rows in batches[1:]:
            current, upcoming = upcoming, pool.submit(load, rows)
            yield current.result()
        yield upcoming.result()


class _Writer:
    """Collects features and writes them as a block now and then, and at the end, whatever it is."""

    def __init__(self, cache: FeatureCache, digests: NDArray[np.uint8]) -> None:
        self._cache = cache
        self._digests = digests
        self._clear()

    def _clear(self) -> None:
        self._rows: list[NDArray[np.int64]] = []
        self._notes: list[str] = []
        self._x: list[NDArray[np.float32]] = []
        self._since = time.monotonic()

    def write(self, rows: NDArray[np.int64], *, notes: list[str], x: NDArray[np.float32]) -> None:
        self._rows.append(rows)
        self._notes += notes
        self._x.append(x)
        waited = time.monotonic() - self._since
        if len(self._notes) >= FLUSH_ROWS or waited >= FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        rows, notes, x = self._rows, self._notes, self._x
        self._clear()
        if notes:
            digests = self._digests[np.concatenate(rows)]
            self._cache.add(digests, notes=notes, x=np.concatenate(x))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
