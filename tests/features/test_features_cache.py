"""The cache survives damage, crowding, other processes and a disk that says no."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.errors import CacheError
from fedtl.features import FeatureCache, prune, usage
from fedtl.home import unwritable

WIDTH = 6


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDTL_HOME", str(tmp_path))
    return tmp_path


def digests(*numbers: int) -> np.ndarray:
    made = np.zeros((len(numbers), 32), np.uint8)
    made[:, 30] = np.array(numbers) // 256
    made[:, 31] = np.array(numbers) % 256
    return made


def features(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.float32)[:, None] + np.arange(WIDTH, dtype=np.float32) / 10


def add(cache: FeatureCache, *numbers: int) -> None:
    cache.add(digests(*numbers), notes=[f"note {n % 2}" for n in numbers], x=features(*numbers))


def blocks(home: Path) -> list[Path]:
    return sorted(home.glob("features/*/blocks/*"), key=lambda path: path.stat().st_mtime_ns)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    wanted=st.lists(st.integers(0, 19), max_size=12),
    again=st.booleans(),
)
def test_each_picture_gets_its_own_features_and_note(
    sizes: list[int], wanted: list[int], again: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTL_HOME", str(tmp_path_factory.mktemp("home")))
        cache = FeatureCache("k", WIDTH)
        stops = np.cumsum([0, *sizes]).tolist()
        for start, stop in itertools.pairwise(stops):
            add(cache, *range(start, stop))
        cache = FeatureCache("k", WIDTH) if again else cache
        rows = cache.find(digests(*wanted))
        known = [n for n in wanted if n < stops[-1]]
        assert (rows >= 0).tolist() == [n < stops[-1] for n in wanted]
        found = rows[rows >= 0]
        assert np.array_equal(cache.rows(found), features(*known).reshape(-1, WIDTH))
        assert cache.notes(found) == [f"note {n % 2}" for n in known]


def test_rows_in_order_are_a_read_only_map_and_not_a_copy() -> None:
    cache = FeatureCache("k", WIDTH)
    add(cache, *range(10))
    view = cache.rows(np.arange(2, 7))
    assert np.shares_memory(view, cache.rows(np.arange(10)))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "rename"])
def test_a_damaged_block_costs_only_its_own_pictures(
    home: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache("k", WIDTH)
    add(cache, 1, 2)
    add(cache, 3)
    path = blocks(home)[0]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-9] ^= 1
    path.write_bytes({"truncate": content[:-1], "empty": b""}.get(damage, content))
    if damage == "rename":
        path.rename(path.with_name(f"{'0' * 64}.safetensors"))
    again = FeatureCache("k", WIDTH)
    assert (again.find(digests(1, 2, 3)) >= 0).tolist() == [False, False, True]
    assert "damaged" in caplog.text
    assert len(blocks(home)) == 1
    add(again, 1, 2)
    assert np.array_equal(again.rows(again.find(digests(2, 3))), features(2, 3))


def test_features_of_another_width_are_not_taken(home: Path) -> None:
    add(FeatureCache("k", WIDTH), 1)
    assert FeatureCache("k", WIDTH + 1).find(digests(1)).tolist() == [-1]


WRITER = """
import sys
import numpy as np
from fedtl.features import FeatureCache
seed = int(sys.argv[1])
order = np.random.default_rng(seed).permutation(60)
for part in np.split(order, 20):
    cache = FeatureCache("k", 6)
    digests = np.zeros((len(part), 32), np.uint8)
    digests[:, 31] = part
    x = part[:, None].astype(np.float32) + np.arange(6, dtype=np.float32) / 10
    cache.add(digests, notes=[f"note {n % 2}" for n in part], x=x)
    rows = cache.find(digests)
    assert (cache.rows(rows) == x).all()
"""


def test_two_processes_may_write_the_same_pictures_at_once(home: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(i)]) for i in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    cache = FeatureCache("k", WIDTH)
    everything = list(range(60))
    rows = cache.find(digests(*everything))
    assert np.array_equal(cache.rows(rows), features(*everything))
    assert not list(home.rglob("*.tmp"))


def test_the_least_recently_used_goes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a", "b", "c"):
        add(FeatureCache(key, WIDTH), 1, 2)
    for age, key in enumerate(("b", "a", "c")):
        for path in home.glob(f"features/{key}/blocks/*"):
            os.utime(path, (1000 + age, 1000))
    old = FeatureCache("b", WIDTH)
    old.touch(old.find(digests(1)))
    for path in home.glob("features/b/blocks/*"):
        assert path.stat().st_mtime == 1000, "only the time of use may change"
    one = blocks(home)[0].stat().st_size
    monkeypatch.setenv("FEDTL_CACHE_GB", str(3.5 * one / 1e9))
    add(FeatureCache("d", WIDTH), 3, 4)
    assert {entry.key: entry.n_blocks for entry in usage()} == {"a": 0, "b": 1, "c": 1, "d": 1}


def test_a_cache_never_evicts_what_it_is_using(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDTL_CACHE_GB", "1e-9")
    cache = FeatureCache("k", WIDTH)
    for n in range(4):
        add(cache, n)
    assert (FeatureCache("k", WIDTH).find(digests(0, 1, 2, 3)) >= 0).all()


def test_usage_and_prune_agree_on_bytes(home: Path) -> None:
    add(FeatureCache("a", WIDTH), 1)
    add(FeatureCache("b", WIDTH), 1, 2, 3)
    on_disk = sum(path.stat().st_size for path in home.rglob("*.safetensors"))
    assert sum(entry.n_bytes for entry in usage()) == on_disk
    assert [entry.key for entry in usage()] == ["b", "a"]
    assert prune(on_disk) == 0
    assert prune() == on_disk
    assert usage() == []
    assert prune() == 0


@pytest.mark.parametrize("value", ["", "lots", "0", "-3", "nan", "inf"])
def test_a_nonsensical_limit_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FEDTL_CACHE_GB", value)
    with pytest.raises(CacheError, match=f"FEDTL_CACHE_GB is '{value}'"):
        add(FeatureCache("k", WIDTH), 1)


def test_a_place_that_cannot_be_written_loses_nothing(home: Path) -> None:
    cache = FeatureCache("k", WIDTH)
    add(cache, 1)
    folder = home / "features" / "k" / "blocks"
    aside = folder.rename(folder.with_name("aside"))
    folder.write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="FEDTL_HOME") as caught:
        add(cache, 2)
    assert caught.value.code == "disk.unwritable"
    folder.unlink()
    aside.rename(folder)
    assert (FeatureCache("k", WIDTH).find(digests(1, 2)) >= 0).tolist() == [True, False]


FULL = """
import resource, signal
import numpy as np
from fedtl.errors import CacheError
from fedtl.features import FeatureCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = FeatureCache("k", 6)
cache.add(np.zeros((1, 32), np.uint8), notes=["a"], x=np.zeros((1, 6), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    cache.add(np.ones((400, 32), np.uint8), notes=["a"] * 400, x=np.zeros((400, 6), np.float32))
except CacheError as error:
    print(error.code)
print(FeatureCache("k", 6).find(np.zeros((1, 32), np.uint8)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_write_that_breaks_off_leaves_the_old_blocks_and_no_rest(home: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.split() == ["disk.unwritable", "[0]"], ran.stderr
    assert not list(home.rglob("*.tmp"))


def test_a_full_disk_is_told_from_a_forbidden_one(home: Path) -> None:
    full = unwritable(home, OSError(errno.ENOSPC, "No space left on device"))
    assert full.code == "disk.full"
    assert "fedtl features prune" in str(full)
