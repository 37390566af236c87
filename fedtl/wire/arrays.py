"""Arrays on the wire: Flower's ``Array``, made without a copy and read without trust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, ValuesView
from functools import lru_cache
from io import BytesIO
from tokenize import TokenError
from typing import Any, TypeVar
from weakref import proxy

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedtl.errors import FedtlError

AnyRecord = ArrayRecord | MetricRecord | ConfigRecord
Record = TypeVar("Record", ArrayRecord, MetricRecord)

MAX_BYTES = 1 << 31
_STYPE = "numpy.ndarray"
_KINDS = frozenset({ArrayRecord, MetricRecord, ConfigRecord})
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


class RecordsOf(MutableMapping[str, Record]):
    """The records of one kind in a ``RecordDict``; what is set or deleted here is so there."""

    def __init__(self, content: RecordDict, kind: type[Record]) -> None:
        self._content = proxy(content)  # in a cycle, heads would outlive a round
        self._kind: type[Record] = kind
        self._found: dict[str, Record] = {
            key: record for key, record in content.items() if isinstance(record, kind)
        }

    def __getitem__(self, key: str) -> Record:
        """Return a record."""
        return self._found[key]

    def __setitem__(self, key: str, value: Record) -> None:
        """Set a record of this kind."""
        if not isinstance(value, self._kind):
            raise TypeError(f"'{key}' is a {type(value).__name__}, no {self._kind.__name__}.")
        self._found[key] = self._content[key] = value

    def __delitem__(self, key: str) -> None:
        """Delete a record."""
        del self._found[key], self._content[key]

    def __iter__(self) -> Iterator[str]:
        """Go through the keys."""
        return iter(self._found)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._found)

    def values(self) -> ValuesView[Record]:
        """Return the records."""
        return self._found.values()


class HostRecordDict(RecordDict):
    """A ``RecordDict`` that makes its views once, and again after a change.

    Flower's averaging asks a reply for them six times, ten microseconds each.
    """

    __qualname__ = "RecordDict"

    def __init__(self, records: Mapping[str, AnyRecord] | None = None) -> None:
        super().__init__()
        for key, record in (records or {}).items():
            if type(record) in _KINDS and type(key) is str:
                self.__dict__["_data"][key] = record  # Flower's checks take ten times as long
            else:
                super().__setitem__(key, record)

    @property
    def array_records(self) -> Any:
        """The records that are arrays; they write through."""
        return self.__dict__.get("_arrays") or self._look("_arrays", ArrayRecord)

    @property
    def metric_records(self) -> Any:
        """The records that are metrics; they write through."""
        return self.__dict__.get("_metrics") or self._look("_metrics", MetricRecord)

    def _look(self, name: str, kind: type[ArrayRecord] | type[MetricRecord]) -> Any:
        view = self.__dict__[name] = RecordsOf(self, kind)
        return view

    def __setitem__(self, key: str, value: AnyRecord) -> None:
        """Set a record."""
        self._forget()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Delete a record."""
        self._forget()
        super().__delitem__(key)

    def _forget(self) -> None:
        self.__dict__.pop("_arrays", None)
        self.__dict__.pop("_metrics", None)

    def __reduce__(self) -> tuple[type[RecordDict], tuple[dict[str, Any]]]:
        """Become a plain ``RecordDict`` in another process."""
        return RecordDict, (dict(self.items()),)


def pack(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Put named arrays into a record."""
    record = ArrayRecord()
    # ArrayRecord(dict) would serialise every array, and its own checks take longer than this
    record.__dict__["_data"].update({str(name): HostArray(v) for name, v in arrays.items()})
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
    data = array.data
    if len(data) > MAX_BYTES:
        raise _invalid(name)
    try:
        shape, fortran, dtype, begin = _header(data[: _header_end(data)])
        values = np.frombuffer(data, dtype, offset=begin)
        values = values.reshape(shape, order="F" if fortran else "C")
    except _UNREADABLE as error:
        raise _invalid(name) from error
    if str(dtype) != array.dtype or values.shape != tuple(array.shape):
        raise _invalid(name)
    return values


def _header_end(data: bytes) -> int:
    """Return where the header of ``.npy`` bytes of version 1 ends."""
    return 10 + int.from_bytes(data[8:10], "little")


@lru_cache(maxsize=64)
def _header(begin: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the header of ``.npy`` bytes, which NumPy parses as Python source every time."""
    buffer = BytesIO(begin)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("only version 1 is read")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    return shape, fortran, dtype, buffer.tell()


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
