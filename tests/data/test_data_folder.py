import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedtl.data import Problem, open_data
from fedtl.errors import DataError

Save = Callable[..., Path]


def test_a_folder_of_classes_is_read(folder: Path) -> None:
    manifest = open_data(str(folder))
    assert manifest.name == "pets"
    assert manifest.classes == ("cat", "dog")
    assert np.bincount(manifest.labels).tolist() == [6, 6]
    assert manifest.sites is manifest.groups is None
    assert manifest.problems == ()
    with Image.open(folder / "dog" / "0.png") as stored:
        assert np.array_equal(manifest.source.read(6).pixels, np.asarray(stored))


def test_all_formats_depths_and_nested_folders_are_read(folder: Path, save: Save) -> None:
    for number, (name, mode) in enumerate(
        [("a.TIF", "RGB"), ("b.bmp", "L"), ("c.webp", "RGBA"), ("d.jpeg", "CMYK"), ("e.png", "P")]
    ):
        save(f"pets/cat/ward/{name}", 50 + number, mode=mode)
    (folder / "dog" / "IM0001").write_bytes((folder / "dog" / "0.png").read_bytes())
    manifest = open_data(str(folder))
    assert np.bincount(manifest.labels).tolist() == [11, 7]
    shapes = {manifest.source.read(row).pixels.shape for row in range(len(manifest))}
    assert shapes == {(7, 9), (7, 9, 3)}


def test_a_file_added_later_moves_no_row_of_the_split(folder: Path, save: Save) -> None:
    def split() -> dict[bytes, bool]:
        manifest = open_data(str(folder), test_fraction=0.5)
        return dict(zip(map(bytes, manifest.digests), manifest.test.tolist(), strict=True))

    before = split()
    for number in range(5):
        save(f"pets/ant/{number}.png", 500 + number)
    after = split()
    assert len(after) == 17
    assert before.items() <= after.items()


def test_clutter_is_passed_over_without_a_word(folder: Path) -> None:
    for name in (".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", "labels.csv"):
        (folder / "cat" / name).write_bytes(b"clutter")
    (folder / "@eaDir").mkdir()
    (folder / ".git").mkdir()
    (folder / "README.txt").write_text("text")
    manifest = open_data(str(folder))
    assert len(manifest) == 12
    assert manifest.classes == ("cat", "dog")
    assert manifest.problems == manifest.notes == ()


def spoil(folder: Path) -> set[tuple[str, str]]:
    cat = folder / "cat"
    whole = (cat / "0.png").read_bytes()
    (cat / "cut.png").write_bytes(whole[: len(whole) // 2])
    (cat / "empty.jpg").touch()
    (cat / "model.png").write_bytes(pickle.dumps(["not a picture"]))
    (cat / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    Image.fromarray(np.zeros((3, 3), np.float32)).save(cat / "float.tif")
    os.mkfifo(cat / "pipe.png")
    return {
        ("cat/cut.png", "truncated"),
        ("cat/empty.jpg", "zero-byte"),
        ("cat/model.png", "not-an-image"),
        ("cat/scan.dcm", "unsupported"),
        ("cat/float.tif", "unsupported"),
        ("cat/pipe.png", "unreadable"),
    }


def test_every_unusable_file_is_counted_and_listed(folder: Path) -> None:
    expected = spoil(folder)
    with pytest.raises(DataError, match=r"6 files.*\(.*and 1 more") as caught:
        open_data(str(folder), tolerate_unreadable=5)
    assert str(caught.value).count("cat/") == 5
    assert "tolerate_unreadable = 6" in caught.value.next_step
    manifest = open_data(str(folder), tolerate_unreadable=6)
    assert {(p.path, p.reason) for p in manifest.problems} == expected
    assert len(manifest) == 12
    assert manifest.source.read(11).pixels.shape == (7, 9)


def test_links_that_leave_the_folder_are_not_followed(folder: Path, save: Save) -> None:
    secret = save("elsewhere/secret.png", 900)
    (folder / "cat" / "out.png").symlink_to(secret)
    (folder / "cat" / "ward").symlink_to(secret.parent)
    (folder / "cat" / "round").symlink_to(folder / "cat")
    (folder / "cat" / "gone.png").symlink_to(folder / "cat" / "missing.png")
    (folder / "cat" / "self.png").symlink_to(folder / "cat" / "self.png")
    (folder / "cat" / "same.png").symlink_to(folder / "cat" / "0.png")
    (folder / "bird").symlink_to(secret.parent)
    manifest = open_data(str(folder), tolerate_unreadable=99)
    assert {(p.path, p.reason) for p in manifest.problems} == {
        ("bird", "outside"),
        ("cat/out.png", "outside"),
        ("cat/ward", "outside"),
        ("cat/round", "link"),
        ("cat/gone.png", "unreadable"),
        ("cat/self.png", "outside"),
    }
    assert len(manifest) == 13


def test_a_link_to_the_folder_itself_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert len(open_data(str(tmp_path / "current"))) == 12


@pytest.mark.parametrize("twin", ["Cat", "cat ", "CAT"])
def test_class_names_that_can_be_confused_are_refused(folder: Path, save: Save, twin: str) -> None:
    save(f"pets/{twin}/0.png")
    with pytest.raises(DataError, match="differ only by case or white space"):
        open_data(str(folder))


def test_a_file_name_that_is_not_utf8_can_be_reported(folder: Path) -> None:
    with open(os.fsencode(folder / "cat") + b"/\xff.png", "wb"):
        pass
    with pytest.raises(DataError) as caught:
        open_data(str(folder))
    str(caught.value).encode()


def test_pictures_without_a_class_and_classes_without_a_picture_are_noted(
    folder: Path, save: Save
) -> None:
    save("pets/loose.png")
    (folder / "eel").mkdir()
    notes = open_data(str(folder), test_fraction=0.5).notes
    assert any("'eel' has no picture" in note for note in notes)
    assert any("1 pictures lie outside" in note for note in notes)


def test_twelve_bit_content_is_noted(folder: Path) -> None:
    deep = np.full((4, 4), 4000, dtype=np.uint16)
    Image.fromarray(deep).save(folder / "cat" / "deep.png")
    assert any("1 pictures" in note and "4095" in note for note in open_data(str(folder)).notes)


def test_progress_is_told_to_the_end(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_data(str(folder), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)


@pytest.fixture
def sites(tmp_path: Path, save: Save) -> Path:
    for seed, place in enumerate(["north/cat", "north/dog", "south/cat", "south/dog"]):
        for number in range(3):
            save(f"wards/{place}/{number}.png", 10 * seed + number)
    return tmp_path / "wards"


def test_a_folder_of_sites_is_recognised(sites: Path) -> None:
    manifest = open_data(str(sites))
    assert manifest.classes == ("cat", "dog")
    assert manifest.sites == ("north",) * 6 + ("south",) * 6


def test_a_class_of_one_site_only_must_be_listed(sites: Path, save: Save) -> None:
    save("wards/south/eel/0.png")
    with pytest.raises(DataError, match=r"'south'.*'eel'"):
        open_data(str(sites))
    manifest = open_data(str(sites), classes=["cat", "dog", "eel"])
    assert np.bincount(manifest.labels).tolist() == [6, 6, 1]


def test_class_names_are_compared_across_sites(sites: Path) -> None:
    (sites / "south" / "cat").rename(sites / "south" / "Cat")
    with pytest.raises(DataError, match="differ only by case"):
        open_data(str(sites))


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ([], "no class folders"),
        (["0.png", "1.png"], "no class folders"),
        (["cat/0.png"], r"1 class \(cat\)"),
    ],
)
def test_a_folder_without_two_classes_is_refused(
    tmp_path: Path, save: Save, layout: list[str], words: str
) -> None:
    (tmp_path / "pets").mkdir()
    for number, name in enumerate(layout):
        save(f"pets/{name}", number)
    with pytest.raises(DataError, match=words) as caught:
        open_data(str(tmp_path / "pets"))
    assert caught.value.next_step


def test_class_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "dog").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        open_data(str(tmp_path / "pets"))


def test_a_folder_nested_deeper_than_the_call_stack_is_walked(folder: Path) -> None:
    there = os.open(folder / "cat", os.O_RDONLY)
    for _ in range(1050):
        os.mkdir("d", dir_fd=there)
        deeper = os.open("d", os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = deeper
    os.close(there)
    try:
        assert len(open_data(str(folder))) == 12
    finally:  # pytest's own cleaning would recurse
        subprocess.run(["rm", "-rf", folder / "cat"], check=True)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Run a test without a superuser's rights, in a folder that anyone may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("cat", "dog"):
        (folder / name).mkdir(mode=0 if name == "cat" else 0o755)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    yield folder
    if was_root:
        os.seteuid(0)
    (folder / "cat").chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_may_not_be_listed_is_named(as_nobody: Path) -> None:
    with pytest.raises(DataError, match="cannot be listed"):
        open_data(str(as_nobody))


def test_problems_can_be_compared() -> None:
    assert Problem("a", "truncated") == Problem("a", "truncated") != Problem("a", "unreadable")
