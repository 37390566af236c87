from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedtl.data import Problem, open_data
from fedtl.errors import DataError

Save = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path, save: Save) -> Callable[..., str]:
    """Write eight pictures and a table with the given lines; return the table's path."""
    for number in range(8):
        save(f"study/scans/{number}.png", number)

    def write(*lines: str, encoding: str = "utf-8") -> str:
        path = tmp_path / "study" / "list.csv"
        path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
        return str(path)

    return write


def test_paths_are_looked_up_beside_the_table(
    table: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    lines = [f'"scans/{n}.png",{"sick" if n % 2 else "well"}' for n in range(8)]
    manifest = open_data(table("path,label", *lines, "", encoding="utf-8-sig"))
    assert manifest.classes == ("sick", "well")
    assert manifest.labels.tolist() == [1, 0] * 4
    assert manifest.groups is manifest.sites is None
    assert manifest.source.read(7).pixels.shape == (7, 9)


def test_groups_sites_and_a_stated_split_are_kept(table: Callable[..., str]) -> None:
    manifest = open_data(
        table(
            "Label, path ,SPLIT,group,site,comment",
            "0,scans/0.png,Train,p1,north,x",
            "1,scans/1.png,test,p2,south,y",
            "0,scans/2.png,,p2,south,",
            "1,scans/3.png,,p1,north,",
        )
    )
    assert manifest.test.tolist() == [False, True, True, False]
    assert manifest.groups == ("p1", "p2", "p2", "p1")
    assert manifest.sites == ("north", "south", "south", "north")


def test_rows_without_a_stated_split_are_drawn_by_hash(table: Callable[..., str]) -> None:
    lines = [f"scans/{n}.png,{n % 2}" for n in range(8)]
    drawn = open_data(table("path,label", *lines), test_fraction=0.5).test
    half = [f"{line},{'train' if n < 4 else ''}" for n, line in enumerate(lines)]
    mixed = open_data(table("path,label,split", *half), test_fraction=0.5).test
    assert not mixed[:4].any()
    assert np.array_equal(mixed[4:], drawn[4:])


def test_a_patient_in_both_splits_is_refused(table: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"'p1' into both train and test") as caught:
        open_data(
            table("path,label,group,split", "scans/0.png,0,p1,train", "scans/1.png,1,p1,test")
        )
    assert caught.value.code == "data.leak"


def test_paths_that_leave_the_folder_are_problems_unless_absolute(
    table: Callable[..., str], save: Save, tmp_path: Path
) -> None:
    outside = save("other/x.png", 77)
    (tmp_path / "study" / "link.png").symlink_to(outside)
    lines = ["scans/0.png,0", "scans/1.png,1", "../other/x.png,0", "link.png,1"]
    manifest = open_data(table("path,label", *lines), tolerate_unreadable=2)
    assert manifest.problems == (
        Problem("../other/x.png", "outside"),
        Problem("link.png", "outside"),
    )
    absolute = open_data(table("path,label", *lines[:2], f"{outside},0"))
    assert len(absolute) == 3
    assert absolute.source.read(2).pixels.shape == (7, 9)


def test_missing_and_foreign_files_are_problems(table: Callable[..., str]) -> None:
    lines = ["scans/0.png,0", "scans/1.png,1", "scans/none.png,0", "list.csv,1", "scans,1"]
    with pytest.raises(DataError, match=r"3 files.*none\.png \(unreadable\)"):
        open_data(table("path,label", *lines))
    manifest = open_data(table("path,label", *lines), tolerate_unreadable=3)
    assert [p.reason for p in manifest.problems] == ["unreadable", "not-an-image", "unreadable"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([""], "lacks the column 'path'"),
        (["file,label", "a,b"], "lacks the column 'path'"),
        (["path;label", "a;b"], "lacks the column"),
        (["path,label,path", "a,b,c"], "names a column twice"),
        (["path,label", "scans/0.png,"], "line 2, has no label"),
        (["path,label", "scans/0.png,0", "scans/1.png,NaN"], "line 3, has no label"),
        (["path,label,group", "scans/0.png,0,"], "line 2, has no group"),
        (["path,label", "scans/0.png,0", "scans/./0.png,1"], r"line 3.*again \(first in line 2\)"),
        (["path,label", "scans/0.png"], "line 2, has 1 of 2 columns"),
        (["path,label", "scans/0.png,0,1"], "line 2, has 3 of 2 columns"),
        (["path,label,split", "scans/0.png,0,tset"], "Did you mean 'test'"),
        (["path,label", '"scans/0.png,0'], "cannot be read as CSV"),
        (["path,label"], "holds no pictures"),
    ],
)
def test_a_table_that_is_wrong_is_refused(
    table: Callable[..., str], lines: list[str], words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data(table(*lines))
    assert caught.value.next_step


def test_a_table_in_another_encoding_is_refused(table: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="UTF-8"):
        open_data(table("path,label", "scans/0.png,gesünder", encoding="latin-1"))


def test_a_nul_in_a_path_is_a_problem_not_a_crash(table: Callable[..., str]) -> None:
    with pytest.raises(DataError):
        open_data(table("path,label", "scans/0.png,0", "scans/1.png,1", "a\0b.png,1"))
