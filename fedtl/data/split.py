"""Splits by hash: who is held out depends on content or group alone, never on order or company."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import DataError


def positions(keys: Sequence[bytes], salt: bytes) -> NDArray[np.uint64]:
    """Return each key's place from 0 to 2^64: the first 8 bytes of its salted SHA-256."""
    heads = b"".join(hashlib.sha256(salt + key).digest()[:8] for key in keys)
    return np.frombuffer(heads, dtype=">u8").astype(np.uint64)


def check_fraction(test_fraction: float) -> None:
    """Refuse a share of held-out rows outside 0 <= f < 1, before any file is read."""
    if not 0 <= test_fraction < 1:
        raise DataError(
            f"test_fraction is {test_fraction}.",
            next_step="Give a number from 0 up to, but not including, 1.",
            code="data.argument",
        )


def held_out(
    digests: NDArray[np.uint8],
    *,
    test_fraction: float,
    groups: Sequence[str] | None = None,
    salt: str = "fedtl split 1:",
) -> NDArray[np.bool_]:
    """Say which rows are held out for testing.

    A row is held out if its position (see :func:`positions`) lies below ``test_fraction`` of the
    line. The key is the row's group if there are groups, else its content. So a patient never
    straddles the split, identical pictures do not either, and adding files moves nobody.

    Parameters
    ----------
    digests : NDArray[np.uint8]
        ``[n, 32]``.
    test_fraction : float
        Expected share of held-out rows (of groups, if there are groups), 0 <= f < 1.
    groups : Sequence[str], optional
        ``[n]``.
    salt : str
        Another salt gives another, independent split.

    Raises
    ------
    DataError
        ``test_fraction`` is out of range.

    Examples
    --------
    >>> same = np.zeros((4, 32), np.uint8)
    >>> held_out(same, test_fraction=0.3, groups=["a", "a", "b", "b"]).tolist()
    [False, False, True, True]
    """
    check_fraction(test_fraction)
    if groups is None:
        keys = [row.tobytes() for row in digests]
    else:
        keys = [group.encode("utf-8", "surrogatepass") for group in groups]
    return positions(keys, salt.encode()) < np.uint64(int(test_fraction * 2**64))


def keep(digests: NDArray[np.uint8], test: NDArray[np.bool_], *, limit: int) -> NDArray[np.int64]:
    """Return ``limit`` training rows and a proportionate share of test rows, in row order.

    The rows with the smallest hash of their content are kept, so as a data set grows most of the
    choice stays. At least one test row is kept if there is any.

    Raises
    ------
    DataError
        ``limit`` is below 1.
    """
    if limit < 1:
        raise DataError(
            f"limit is {limit}.",
            next_step="Give the number of training rows to keep, or 0 for all.",
            code="data.argument",
        )
    order = np.argsort(positions([d.tobytes() for d in digests], b"fedtl limit 1:"), kind="stable")
    train_rows, test_rows = order[~test[order]], order[test[order]]
    share = min(1.0, limit / max(1, len(train_rows)))
    n_test = max(min(1, len(test_rows)), round(share * len(test_rows)))
    return np.sort(np.concatenate([train_rows[:limit], test_rows[:n_test]]))
