"""The replies of a round as rows of one matrix, and rows as heads again."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedtl.types import Arrays
from fedtl.wire.arrays import HostRecordDict, pack, unpack
from fedtl.wire.messages import WEIGHT, records

Matrix = NDArray[np.float64]
"""``[n, p]`` updates, or one of ``[p]``."""


@dataclass(frozen=True, slots=True)
class Updates:
    """What sites moved a head by, one row per reply.

    Rows are float64: squares of the largest float32 numbers are finite there, so that a site that
    sends such numbers spoils nobody's distances but its own.

    Attributes
    ----------
    rows : NDArray
        ``[n, p]`` float64, trained heads less the head that was sent.
    head : mapping of str to NDArray
        The head that was sent; zeros where none is known.
    """

    rows: Matrix
    head: Arrays

    @classmethod
    def of(cls, replies: Sequence[Message], head: Arrays) -> Updates:
        """Read replies, all of the same arrays; those of the head that nobody trains are left out.

        Parameters
        ----------
        replies : sequence of Message
            With content; at least one.
        """
        heads = [unpack(records(reply.content, ArrayRecord)[0]) for reply in replies]
        start = {name: head.get(name, np.zeros_like(v)) for name, v in heads[0].items()}
        rows = np.stack([flat({name: arrays[name] for name in start}) for arrays in heads])
        return cls(rows - flat(start), start)

    def head_after(self, update: Matrix) -> dict[str, NDArray[np.float32]]:
        """Return the head that an update of ``[p]`` leads to."""
        return moved(self.head, update)


def flat(arrays: Arrays) -> Matrix:
    """Return named arrays as one row of float64."""
    return np.concatenate([np.ravel(values).astype(np.float64) for values in arrays.values()])


def moved(head: Arrays, update: Matrix) -> dict[str, NDArray[np.float32]]:
    """Return a head plus an update of ``[p]``, the head's arrays in their order.

    Examples
    --------
    >>> moved({"weight": np.ones((1, 2))}, np.array([1.0, -3.0]))["weight"]
    array([[ 2., -2.]], dtype=float32)
    """
    cuts = np.cumsum([values.size for values in head.values()])[:-1]
    parts = np.split(update, cuts)
    return {
        name: (values.astype(np.float64) + part.reshape(values.shape)).astype(np.float32)
        for (name, values), part in zip(head.items(), parts, strict=True)
    }


def replaced(reply: Message, head: Arrays, *, weight: float | None = None) -> Message:
    """Return a reply of the same site with another head in it, and perhaps another weight."""
    content = HostRecordDict()
    for name, record in reply.content.items():
        if isinstance(record, ArrayRecord):
            content[name] = pack(head)
        elif isinstance(record, MetricRecord) and weight is not None:
            content[name] = MetricRecord({**dict(record.items()), WEIGHT: weight})
        else:
            content[name] = record
    other = copy(reply)
    other.content = content
    return other


def squared_distances(rows: Matrix) -> Matrix:
    """Return ``[n, n]`` squared Euclidean distances between ``[n, p]`` rows, 0 on the diagonal.

    Examples
    --------
    >>> squared_distances(np.array([[0.0, 0.0], [3.0, 4.0]]))
    array([[ 0., 25.],
           [25.,  0.]])
    """
    squares = np.einsum("ij,ij->i", rows, rows)
    found = squares[:, None] + squares[None, :] - 2 * (rows @ rows.T)
    np.maximum(found, 0, out=found)
    np.fill_diagonal(found, 0)
    return np.asarray(found)


def lengths(rows: Matrix) -> Matrix:
    """Return ``[n]`` Euclidean norms of ``[n, p]`` rows."""
    return np.asarray(np.linalg.norm(rows, axis=1))


def shortened(rows: Matrix, most: float) -> Matrix:
    """Return rows scaled down to a Euclidean norm of at most ``most``.

    Examples
    --------
    >>> shortened(np.array([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """
    found = lengths(rows)
    return np.asarray(rows * np.minimum(1.0, most / np.where(found > 0, found, 1.0))[:, None])
