import gzip
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedtl.data import open_data
from fedtl.data.named import FASHION_CLASSES
from fedtl.errors import DataError

FASHION = Path("/usr/share/datasets/fashion-mnist")
needs_fashion = pytest.mark.skipif(
    not FASHION.exists(), reason="dataset-fashion-mnist is not installed"
)


def test_digits_are_scikit_learns_digits() -> None:
    manifest, known = open_data("digits"), load_digits()
    ours = np.stack([manifest.source.read(row).pixels for row in range(len(manifest))])
    assert np.array_equal(ours, np.rint(known.images * 255 / 16).astype(np.uint8))
    assert np.array_equal(manifest.labels, known.target)
    assert manifest.classes == tuple("0123456789")
    assert manifest.test.mean() == pytest.approx(0.2, abs=0.03)


def test_digits_open_without_the_heavy_libraries() -> None:
    code = (
        "import sys, fedtl.data as d; d.open_data('digits'); "
        "heavy = {'torch', 'timm', 'flwr', 'onnxruntime', 'sklearn', 'scipy'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_fashion
def test_fashion_mnist_opens_quickly_with_its_official_split() -> None:
    begin = time.process_time()
    manifest = open_data("fashion-mnist")
    assert time.process_time() - begin < 2
    assert (~manifest.test).sum() == 60_000
    assert manifest.test[60_000:].all()
    assert len(manifest) == 70_000
    assert np.bincount(manifest.labels).tolist() == [7000] * 10
    assert manifest.classes[manifest.labels[0]] == "Ankle boot"
    assert manifest.source.read(0).pixels.shape == (28, 28)
    few = open_data("fashion-mnist", limit=600)
    assert ((~few.test).sum(), few.test.sum()) == (600, 100)


def write_idx(folder: Path, part: str, n: int) -> None:
    pixels, labels = np.full((n, 2, 2), n, np.uint8), (np.arange(n) % 10).astype(np.uint8)
    for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes()
        with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
            file.write(header + array.tobytes())


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDTL_FASHION_MNIST", str(tmp_path))
    write_idx(tmp_path, "train", 30)
    write_idx(tmp_path, "t10k", 10)
    return tmp_path


def test_fashion_mnist_can_lie_elsewhere(fashion: Path) -> None:
    manifest = open_data("fashion-mnist")
    assert manifest.test.tolist() == [False] * 30 + [True] * 10
    assert manifest.classes == FASHION_CLASSES


def test_a_missing_fashion_mnist_says_how_to_install_it(fashion: Path) -> None:
    (fashion / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        open_data("fashion-mnist")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"\0\0\x08"),
        gzip.compress(b"\0\0\x08\x03" + bytes(12))[:-6],
        gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12),
        gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x1e\0\0\0\x02\0\0\0\x02" + bytes(119)),
        gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x1e\0\0\0\x02\0\0\0\x02" + bytes(121)),
        gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x1d\0\0\0\x02\0\0\0\x02" + bytes(116)),
    ],
)
def test_a_damaged_fashion_mnist_is_refused(fashion: Path, content: bytes) -> None:
    (fashion / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_data("fashion-mnist")


def test_a_limit_keeps_training_rows_and_their_share_of_test_rows() -> None:
    whole, few = open_data("digits"), open_data("digits", limit=100)
    assert (~few.test).sum() == 100
    assert few.test.sum() == round(100 * whole.test.sum() / (~whole.test).sum())
    assert {bytes(d) for d in few.digests} <= {bytes(d) for d in whole.digests}


def test_classes_fix_the_labels_of_a_site_that_lacks_some(folder: Path) -> None:
    shutil.rmtree(folder / "cat")
    manifest = open_data(str(folder), classes=["eel", "dog", "cat"])
    assert manifest.classes == ("eel", "dog", "cat")
    assert set(manifest.labels.tolist()) == {1}


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "dgo"], r"'dog', which `classes` does not name.*Did you mean 'dgo'"),
        (["cat", "dog", "cat"], "twice"),
        (["Cat", "dog"], "'cat', which"),
    ],
)
def test_classes_that_do_not_match_are_refused(
    folder: Path, classes: list[str], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        open_data(str(folder), classes=classes)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("digts", "Did you mean 'digits'"),
        ("no/such/folder", "Known: digits, fashion-mnist"),
        ("", "no folder, file or known data set"),
        ("a\0b", "no folder, file or known data set"),
        ("~nobody-of-that-name/x", "no folder, file or known data set"),
        ("x" * 5000, "no folder, file or known data set"),
    ],
)
def test_an_unknown_source_lists_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        open_data(source)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match=r"neither a folder nor a \.csv or \.npz file"):
        open_data(str(tmp_path / "data.pkl"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"limit": -5}, "limit is -5"),
        ({"tolerate_unreadable": -1}, "tolerate_unreadable is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data("digits", **arguments)
    assert caught.value.next_step


def test_no_held_out_row_is_noted_and_no_training_row_refused(folder: Path) -> None:
    assert "No row is held out for testing." in open_data(str(folder), test_fraction=0).notes
    with pytest.raises(DataError, match="no row for training"):
        open_data(str(folder), test_fraction=0.9999)
