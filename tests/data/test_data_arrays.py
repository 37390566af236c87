import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedtl.data import arrays, open_data
from fedtl.data.arrays import digests_of
from fedtl.errors import DataError

X = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
Y = np.arange(12) % 3


def npz(tmp_path: Path, **columns: object) -> str:
    path = tmp_path / "scans.npz"
    np.savez_compressed(path, **{name: np.asarray(column) for name, column in columns.items()})
    return str(path)


def test_whole_numbers_become_classes_in_numeric_order(tmp_path: Path) -> None:
    manifest = open_data(npz(tmp_path, x=X, y=Y * 9 + 1))
    assert manifest.classes == ("1", "10", "19")
    assert np.array_equal(manifest.labels, Y)
    assert np.array_equal(manifest.source.read(4).pixels, X[4])


def test_names_groups_split_and_sites_are_kept(tmp_path: Path) -> None:
    split = np.array(["train", "test"] * 6)
    manifest = open_data(
        npz(
            tmp_path,
            x=X,
            y=Y,
            class_names=["b", "a", "c", "none"],
            group=np.arange(12),
            split=split,
            site=["n", "s"] * 6,
        )
    )
    assert manifest.classes == ("b", "a", "c", "none")
    assert np.array_equal(manifest.labels, Y)
    assert np.array_equal(manifest.test, split == "test")
    assert manifest.groups == tuple(map(str, range(12)))
    assert manifest.sites == ("n", "s") * 6


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (X[..., None], (5, 4)),
        (np.repeat(X[..., None], 3, axis=3), (5, 4, 3)),
        (X.astype(">u2"), (5, 4)),
        (np.asfortranarray(X), (5, 4)),
    ],
)
def test_shapes_byte_orders_and_memory_layouts(
    tmp_path: Path, x: np.ndarray, shape: tuple[int, ...]
) -> None:
    picture = open_data(npz(tmp_path, x=x, y=Y)).source.read(2)
    assert picture.pixels.shape == shape
    assert np.array_equal(np.squeeze(x[2]), picture.pixels)


def test_the_digest_sees_dtype_shape_and_bytes_but_not_byte_order() -> None:
    zeros = np.zeros((1, 4, 4), np.uint8)
    one = digests_of(zeros)
    assert not np.array_equal(one, digests_of(zeros.reshape(1, 2, 8)))
    assert not np.array_equal(one, digests_of(np.zeros((1, 4, 2), np.uint16)))
    deep = X.astype(np.uint16) * 257 + 1
    assert np.array_equal(digests_of(deep.astype("<u2")), digests_of(deep.astype(">u2")))
    assert len({row.tobytes() for row in digests_of(X)}) == 12


def test_twelve_bit_content_is_noted(tmp_path: Path) -> None:
    notes = open_data(npz(tmp_path, x=X.astype(np.uint16) * 16, y=Y)).notes
    assert any("4095" in note for note in notes)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": X}, "lacks the array 'y'"),
        ({"x": X, "y": Y[:5]}, "12 pictures but 5 entries in 'y'"),
        ({"x": X, "y": Y, "group": ["p"]}, "1 entries in 'group'"),
        ({"x": X, "y": np.where(Y == 2, np.nan, Y)}, "NaN in 'y', first in row 2"),
        ({"x": X, "y": Y * 0.5}, "'y' of dtype float64"),
        ({"x": X * np.nan, "y": Y}, "NaN in 'x'"),
        ({"x": X / 255, "y": Y}, "'x' of dtype float64"),
        ({"x": X[:, 0], "y": Y}, "'x' of shape"),
        ({"x": X[..., None, None], "y": Y}, "'x' of shape"),
        ({"x": np.repeat(X[..., None], 2, axis=3), "y": Y}, "'x' of shape"),
        ({"x": X, "y": Y[:, None]}, "'y' of shape"),
        ({"x": X, "y": Y, "class_names": ["a", "b"]}, "labels from 0 to 2, but 2 class_names"),
        ({"x": X, "y": Y - 1, "class_names": ["a", "b"]}, "labels from -1"),
        ({"x": X, "y": Y, "split": ["train"] * 11 + ["val"]}, "'split'"),
        ({"x": X, "y": Y, "group": ["p"] * 11 + [""]}, "empty entry in 'group'"),
        ({"x": X[:0], "y": Y[:0]}, "holds no pictures"),
        ({"x": X, "y": Y * 0}, "1 class"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data(npz(tmp_path, **columns))
    assert caught.value.next_step


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (fuse,)

    y = np.empty(12, dtype=object)
    y[:] = Bomb()
    with pytest.raises(DataError, match="cannot be read"):
        open_data(npz(tmp_path, x=X, y=y))
    assert not fuse.exists()


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    path = Path(npz(tmp_path, x=X, y=Y))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="cannot be read"):
        open_data(str(path))


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = Path(npz(tmp_path, x=X, y=Y))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        open_data(str(path))


def test_a_header_that_promises_terabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x", "y"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x76\x00" + header)
    with pytest.raises(DataError, match="cannot be read"):
        open_data(str(path))


def test_an_archive_that_unpacks_too_far_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 200)
    with pytest.raises(DataError, match="unpacks to"):
        open_data(npz(tmp_path, x=X, y=Y))
