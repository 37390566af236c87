"""Arrays on the wire: Flower's ``Array``, made without a copy and read without trust."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from tokenize import TokenError
from typing import Any
from weakref import proxy

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedtl.errors import FedtlError

MAX_BYTES = 1 << 31
_STYPE = "numpy.ndarray"
_UNREADABLE = (ValueError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError)
"""What NumPy's parser of headers was seen to raise."""


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    """Return a dtype's name, which NumPy spells anew every time."""
    return str(dtype)


class HostArray(Array):
    """An ``Array`` that keeps its values and serialises them only when bytes are asked for.

    In process nobody asks, which saves most of a message's cost; on Ray and SuperLink it becomes a
    plain ``Array``.
    """

    __qualname__ = "Array"  # Flower writes the class's name on the wire and looks it up there
    _values: NDArray[Any]

    def __init__(self, values: NDArray[Any]) -> None:
        kept = np.ascontiguousarray(values).view()
        kept.flags.writeable = False
        # Array.__setattr__ keeps a cache of serialised chunks in step, and there is none yet
        self.__dict__.update(dtype=_name(kept.dtype), shape=kept.shape, stype=_STYPE, _values=kept)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The values as ``.npy`` bytes, like any other ``Array``."""
        buffer = BytesIO()
        np.save(buffer, self._values, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the values."""
        return self._values.copy()

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        """Become a plain ``Array`` in another process."""
        return Array, (self.dtype, self.shape, self.stype, self.data)


class HostRecordDict(RecordDict):
    """A ``RecordDict`` that makes its views once, and again after a change.

    Flower's averaging asks a reply for them six times, ten microseconds each.
    """

    __qualname__ = "RecordDict"

    @property
    def array_records(self) -> Any:
        """The records that are arrays; they write through."""
        return self._view("array_records")

    @property
    def metric_records(self) -> Any:
        """The records that are metrics; they write through."""
        return self._view("metric_records")

    def _view(self, kind: str) -> Any:
        views = self.__dict__.setdefault("_views", {})
        if kind not in views:
            views[kind] = getattr(super(), kind)
            views[kind].recorddict = proxy(self)  # in a cycle, heads would outlive their round
        return views[kind]

    def __setitem__(self, key: str, value: ArrayRecord | MetricRecord | ConfigRecord) -> None:
        """Set a record."""
        if self.get(key) is not value:
            self.__dict__.pop("_views", None)
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Delete a record."""
        self.__dict__.pop("_views", None)
        super().__delitem__(key)

    def __reduce__(self) -> tuple[type[RecordDict], tuple[dict[str, Any]]]:
        """Become a plain ``RecordDict`` in another process."""
        return RecordDict, (dict(self.items()),)


def pack(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Put named arrays into a record."""
    record = ArrayRecord()
    for name, values in arrays.items():  # ArrayRecord(dict) would serialise every array
        record[name] = HostArray(values)
    return record


def unpack(
    record: ArrayRecord, dtypes: tuple[str, ...] = ("float32", "float64")
) -> dict[str, NDArray[Any]]:
    """Read named arrays from a record that may come from anyone.

    Parameters
    ----------
    dtypes : tuple of str
        What is accepted.

    Returns
    -------
    dict
        Read-only arrays.

    Raises
    ------
    FedtlError
        With code ``message.invalid``: other dtypes, more than 2 GiB, or bytes that do not match the
        declared shape.
    """
    return {name: _values(name, array, dtypes) for name, array in record.items()}


def _values(name: str, array: Array, dtypes: tuple[str, ...]) -> NDArray[Any]:
    if array.stype != _STYPE or array.dtype not in dtypes:
        raise _invalid(name)
    if isinstance(array, HostArray):
        return array._values
    if len(array.data) > MAX_BYTES:
        raise _invalid(name)
    buffer = BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(buffer)
        if version != (1, 0):
            raise _invalid(name)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
        values = np.frombuffer(array.data, dtype, offset=buffer.tell())
        values = values.reshape(shape, order="F" if fortran else "C")
    except _UNREADABLE as error:
        raise _invalid(name) from error
    if str(dtype) != array.dtype or values.shape != tuple(array.shape):
        raise _invalid(name)
    return values


def _invalid(name: str) -> FedtlError:
    return FedtlError(
        f"The received array '{name[:40]}' is of another type or shape than declared.",
        next_step="Sender and receiver must run the same version of fedtl.",
        code="message.invalid",
    )


def count_bytes(record: ArrayRecord) -> int:
    """Return the size of a record's arrays on the wire, without serialising them."""
    return sum(_array_bytes(array) for array in record.values())


def _array_bytes(array: Array) -> int:
    if isinstance(array, HostArray):
        return array._values.nbytes + 128
    return len(array.data)
