"""One block of cached features: a safetensors file named after the digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtl.home import write_atomic

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Features of ``n`` pictures, memory-mapped.

    Parameters
    ----------
    path : Path
        The file.
    digests : NDArray[np.uint8]
        ``[n, 32]``, SHA-256 of each picture's content.
    notes : tuple of str
        What the transform did to each picture.
    x : NDArray[np.float32]
        ``[n, width]``, read-only.
    """

    path: Path
    digests: NDArray[np.uint8]
    notes: tuple[str, ...]
    x: NDArray[np.float32]


class DamagedBlock(Exception):
    """A block whose content is not what its name says."""


def write_block(
    folder: Path, digests: NDArray[np.uint8], *, notes: Sequence[str], x: NDArray[np.float32]
) -> Path:
    """Write a block atomically and return its path.

    Raises
    ------
    CacheError
        The disk is full or the folder cannot be written.
    """
    from safetensors.numpy import save

    texts, codes = np.unique(np.array(notes, dtype=object), return_inverse=True)
    tensors: dict[str, NDArray[Any]] = {"x": x, "digests": digests, "notes": codes.astype(np.int32)}
    content = save(tensors, metadata={"notes": json.dumps(texts.tolist())})
    path = folder / f"{hashlib.sha256(content).hexdigest()}{SUFFIX}"
    write_atomic(path, lambda file: file.write(content), mode=0o600)
    return path


def open_block(path: Path, width: int) -> Block:
    """Map a block and verify its content against its name.

    Raises
    ------
    DamagedBlock
        The content has another digest, or does not read as a block of this width.
    FileNotFoundError
        Another process has removed it.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != path.stem:
        raise DamagedBlock(f"its SHA-256 is {found}")
    content = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int(content[:8].view("<u8")[0])
    header = json.loads(bytes(content[8:start]))
    texts = json.loads(header["__metadata__"]["notes"])

    def tensor(name: str, kind: str) -> NDArray[np.generic]:
        begin, end = header[name]["data_offsets"]
        return content[start + begin : start + end].view(kind).reshape(header[name]["shape"])

    x, digests = tensor("x", "<f4").view(np.ndarray), tensor("digests", "u1")
    if x.shape != (len(digests), width):
        raise DamagedBlock(f"its features have the shape {list(x.shape)}")
    codes = tensor("notes", "<i4").tolist()
    return Block(path, np.array(digests), tuple(texts[code] for code in codes), x)
