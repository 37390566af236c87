import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedtl.data import open_data
from fedtl.errors import DataError


def test_the_fingerprint_sees_content_and_labels_but_not_order(folder: Path) -> None:
    manifest = open_data(str(folder))
    shuffled = manifest.subset(np.random.default_rng(0).permutation(len(manifest)))
    assert shuffled.fingerprint() == manifest.fingerprint()
    assert manifest.subset(np.arange(11)).fingerprint() != manifest.fingerprint()
    swapped = replace(manifest, labels=1 - manifest.labels)
    assert swapped.fingerprint() != manifest.fingerprint()


def test_a_subset_of_a_subset_reads_the_right_pictures(folder: Path) -> None:
    manifest = open_data(str(folder))
    part = manifest.subset(np.array([7, 3, 1])).subset(np.array([True, False, True]))
    assert len(part) == 2
    for row, origin in enumerate((7, 1)):
        assert np.array_equal(part.source.read(row).pixels, manifest.source.read(origin).pixels)
        assert part.labels[row] == manifest.labels[origin]
        assert np.array_equal(part.digests[row], manifest.digests[origin])


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_a_pickled_manifest_still_reads(folder: Path, kind: str) -> None:
    manifest = open_data(str(folder) if kind == "files" else "digits", limit=5)
    copy = pickle.loads(pickle.dumps(manifest))
    assert copy.fingerprint() == manifest.fingerprint()
    assert np.array_equal(copy.source.read(3).pixels, manifest.source.read(3).pixels)


def test_a_file_that_changes_after_opening_is_refused(folder: Path) -> None:
    manifest = open_data(str(folder))
    (folder / "cat" / "0.png").write_bytes((folder / "dog" / "0.png").read_bytes())
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match=r"0\.png.*changed"):
        manifest.source.read(0)
    with pytest.raises(DataError, match=r"1\.png"):
        manifest.source.read(1)


def test_columns_of_different_length_are_refused(folder: Path) -> None:
    manifest = open_data(str(folder))
    with pytest.raises(DataError, match="groups"):
        replace(manifest, groups=("a",))
