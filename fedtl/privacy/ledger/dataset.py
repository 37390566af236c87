"""Whose privacy is spent: a data set as the digests of its records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtl.errors import PrivacyError

KEY_BYTES = 16
"""Bytes of a SHA-256 that are kept: two of 10⁹ records collide with probability 10⁻²⁰."""

_KEY = np.dtype(f"S{KEY_BYTES}")
UNITS = ("example", "group")


@dataclass(frozen=True, eq=False)
class DataSet:
    """The records of a data set, by content: blind to labels, names and order.

    A record is known again by the SHA-256 of its bytes, a group (a patient) by the salted SHA-256
    of its id. So a folder that was re-labelled, sorted anew or grown has spent what its records
    have spent. What cannot be seen: a picture that was encoded anew, cropped or shifted is a new
    record, a patient under a new id is a new group, and ids mean something only under the salt of
    the ledger they were hashed for.

    Attributes
    ----------
    records : NDArray
        ``[n]`` 16-byte keys, sorted. A record that occurs twice in the data is one record here;
        under unit ``"group"`` it is there once for each of its groups.
    groups : NDArray or None
        ``[n]`` key of each record's group; None for unit ``"example"``.

    Examples
    --------
    >>> digests = np.arange(64, dtype=np.uint8).reshape(2, 32)
    >>> DataSet.of(digests) == DataSet.of(digests[::-1])
    True
    """

    records: NDArray[Any]
    groups: NDArray[Any] | None = None

    @classmethod
    def of(
        cls,
        digests: NDArray[np.uint8],
        *,
        groups: Sequence[str] | None = None,
        salt: bytes = b"",
    ) -> DataSet:
        """Make a data set from content digests.

        Parameters
        ----------
        digests : NDArray[np.uint8]
            ``[n, 32]``, as in :attr:`fedtl.data.Manifest.digests`.
        groups : sequence of str, optional
            ``[n]`` group ids, which make the unit ``"group"``.
        salt : bytes
            :attr:`Ledger.salt` of the ledger to be charged; needed with ``groups``.

        Raises
        ------
        PrivacyError
            The shapes do not fit, or group ids would be hashed without a salt.
        """
        digests = np.asarray(digests)
        if digests.ndim != 2 or digests.shape[1] != 32 or digests.dtype != np.uint8:
            raise PrivacyError(
                f"digests is {digests.dtype} {list(digests.shape)}, not uint8 [n, 32].",
                next_step="Pass Manifest.digests of the training rows.",
            )
        records = np.ascontiguousarray(digests[:, :KEY_BYTES]).view(_KEY).ravel()
        if groups is None:
            return cls(np.unique(records))
        if len(groups) != len(records) or not salt:
            raise PrivacyError(
                f"groups has {len(groups)} entries for {len(records)} records, salt {len(salt)} "
                "bytes.",
                next_step="Give every record a group, and the salt of the ledger.",
            )
        key = {name: hashlib.sha256(salt + name.encode()).digest() for name in set(groups)}
        raw = b"".join(key[name][:KEY_BYTES] for name in groups)
        pairs = np.empty(len(records), np.dtype([("record", _KEY), ("group", _KEY)]))
        pairs["record"], pairs["group"] = records, np.frombuffer(raw, _KEY)
        pairs = np.unique(pairs)
        return cls(pairs["record"].copy(), pairs["group"].copy())

    def __len__(self) -> int:
        return len(self.records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataSet) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def unit(self) -> str:
        """``"example"`` or ``"group"``: whose presence is hidden."""
        return "example" if self.groups is None else "group"

    @property
    def units(self) -> int:
        """Number of distinct examples or groups."""
        return len(np.unique(self.records if self.groups is None else self.groups))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of unit and members."""
        start = hashlib.sha256(f"{self.unit} {len(self)} ".encode())
        start.update(self.records.tobytes())
        start.update(b"" if self.groups is None else self.groups.tobytes())
        return start.hexdigest()

    def to_bytes(self) -> bytes:
        """Return the members, 16 or 32 bytes each."""
        return self.records.tobytes() + (b"" if self.groups is None else self.groups.tobytes())

    @classmethod
    def from_bytes(cls, unit: str, members: bytes) -> DataSet:
        """Read :meth:`to_bytes`; whether it is whole, its fingerprint tells.

        Raises
        ------
        ValueError
            These are no members.
        """
        if unit not in UNITS or len(members) % (KEY_BYTES * (1 + UNITS.index(unit))):
            raise ValueError(unit)
        keys = np.frombuffer(members, _KEY)
        if unit == "example":
            return cls(keys)
        return cls(keys[: len(keys) // 2], keys[len(keys) // 2 :])

    def covered_by(self, other: DataSet) -> NDArray[np.bool_]:
        """Say for each record whether a release from ``other`` was about it or about its group.

        Returns
        -------
        NDArray[np.bool_]
            ``[n]``.
        """
        if self == other:
            return np.ones(len(self), np.bool_)
        covered = _inside(self.records, other.records)
        if self.groups is None or other.groups is None:
            return covered
        return covered | _inside(self.groups, np.unique(other.groups))


def _inside(keys: NDArray[Any], members: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which keys are among sorted members."""
    if not len(members):
        return np.zeros(len(keys), np.bool_)
    at = np.minimum(np.searchsorted(members, keys), len(members) - 1)
    found: NDArray[np.bool_] = members[at] == keys
    return found
