"""Files are written whole or not at all, and where they cannot be written a cure is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

import pytest

from fedtl.errors import CacheError
from fedtl.home import home, unwritable, write_atomic


def test_home_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path / "here"))
    assert home() == tmp_path / "here"
    monkeypatch.setenv("FEDTL_HOME", "~/there")
    assert home() == Path.home() / "there"
    monkeypatch.delenv("FEDTL_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "fedtl"
    assert not (tmp_path / "fedtl").exists()


def test_a_file_is_replaced_as_a_whole_and_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    write_atomic(target, lambda f: f.write(b"one"))
    write_atomic(target, lambda f: f.write(b"two"))
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["file"]
    assert target.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "io")])
def test_a_failed_write_keeps_the_old_file_and_no_rubbish(
    tmp_path: Path, error: BaseException
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def half(file: IO[bytes]) -> None:
        file.write(b"new, but only ha")
        raise error

    with pytest.raises((type(error), CacheError)):
        write_atomic(target, half)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_and_a_forbidden_folder_have_different_cures(tmp_path: Path) -> None:
    def full(file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CacheError, match="disk is full") as error:
        write_atomic(tmp_path / "x", full)
    assert error.value.code == "disk.full"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="cannot be written") as error:
        write_atomic(tmp_path / "file" / "x", lambda f: f.write(b""))
    assert error.value.code == "disk.unwritable"
    assert "FEDTL_HOME" in unwritable(tmp_path, OSError(errno.EACCES, "denied")).next_step
