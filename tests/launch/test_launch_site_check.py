"""Each finding of a site's examination appears where it should, and vanishes when it is cured."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedtl.backbone import BackboneCard
from fedtl.data import Manifest
from fedtl.launch import opening
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.site_check import examine_site, machine, privacy
from fedtl.launch.site_check.data import look_at_data, open_all
from fedtl.launch.site_check.guard import guarded
from fedtl.launch.site_check.pictures import look_at_pictures
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import GaussianEvent
from fedtl.privacy.ledger import Budget, DataSet, Ledger, RequestKey
from fedtl.privacy.ledger.clock import Reading
from fedtl.report.site_page import Chapter
from fedtl.site.config import SiteConfig, SiteFolder, read_site
from fedtl.site.folder import make_site
from fedtl.site.policy import STRICT, SitePolicy
from fedtl.types import Finding

CARD = BackboneCard(
    architecture="toy",
    sha256="0" * 64,
    source="test",
    licence="none",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    interpolation="bilinear",
    crop_pct=0.875,
    crop_mode="center",
    native_size=32,
    image_size=32,
    taps=("final",),
    tap_widths=(8,),
    timm_version="1",
)


def silent(done: int, total: int) -> None:
    pass


def noise(
    seed: int, *, low: int = 0, high: int = 256, size: tuple[int, int] = (32, 32)
) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(low, high, (*size, 3), dtype=np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of 15 images, all different, of usual brightness."""
    for at, label in enumerate(("cat", "dog")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for n in range(15):
            noise(100 * at + n).save(tmp_path / "images" / label / f"{n:02}.png")
    return tmp_path / "images"


def config(source: Path | str, **data: Any) -> SiteConfig:
    return SiteConfig.model_validate({"name": "north", "data": {"source": str(source), **data}})


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def data_chapter(source: Path, **data: Any) -> Chapter:
    asked = config(source, **data)
    return look_at_data(open_all(asked, silent), asked)


def on_data(source: Path, **data: Any) -> dict[str, Finding]:
    return by_name(data_chapter(source, **data).findings)


def table(images: Path, rows: Iterable[str], columns: str = "path,label,group") -> Path:
    path = images / "table.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


# ------------------------------------------------------------------------------------ data
def test_whole_data_have_nothing_to_mend(images: Path) -> None:
    found = on_data(images)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["data"].what.startswith("30 images in 2 classes: ")
    assert "15" not in found["data"].what  # some of each class are held out
    assert found["duplicates"].what == "no two images are the same"


def test_unreadable_files_are_all_listed_and_broken_unless_they_are_tolerated(images: Path) -> None:
    (images / "cat" / "empty.png").touch()
    (images / "dog" / "half.png").write_bytes((images / "dog" / "00.png").read_bytes()[:200])
    (images / "dog" / "scan.dcm").write_bytes(b"x")
    chapter = data_chapter(images)
    bad = by_name(chapter.findings)["unreadable files"]
    assert bad.state == "broken"
    assert "3 files" in bad.what
    assert "cat/empty.png (zero-byte)" in bad.what
    assert "tolerate_unreadable = 3" in bad.cure
    (listed,) = chapter.lists
    assert set(listed.lines) == {
        "cat/empty.png: zero-byte",
        "dog/half.png: truncated",
        "dog/scan.dcm: unsupported",
    }
    assert on_data(images, tolerate_unreadable=3)["unreadable files"].state == "note"
    for name in ("cat/empty.png", "dog/half.png", "dog/scan.dcm"):
        (images / name).unlink()
    assert on_data(images)["unreadable files"] == Finding("unreadable files", "ok", "none")


def test_copies_are_found_and_copies_under_another_label_contradict(images: Path) -> None:
    shutil.copy(images / "cat" / "03.png", images / "cat" / "copy.png")
    found = on_data(images)
    assert found["duplicates"].state == "note"
    assert "1 of 31 images repeat" in found["duplicates"].what
    assert "cat/03.png" in found["duplicates"].what
    assert "contradictions" not in found
    shutil.copy(images / "cat" / "04.png", images / "dog" / "other.png")
    found = on_data(images)
    assert found["contradictions"].state == "broken"
    assert "cat/04.png (cat" in found["contradictions"].what
    assert "dog/other.png (dog" in found["contradictions"].what
    (images / "cat" / "copy.png").unlink()
    (images / "dog" / "other.png").unlink()
    assert on_data(images)["duplicates"].state == "ok"


def test_data_full_of_copies_are_told_in_one_line_and_listed_once_each(images: Path) -> None:
    for n in range(14):
        for label in ("cat", "dog"):
            shutil.copy(images / "cat" / "14.png", images / label / f"{n:02}.png")
    chapter = data_chapter(images)
    found = by_name(chapter.findings)
    assert "28 of 30 images repeat" in found["duplicates"].what
    assert "1 image with contradicting labels" in found["contradictions"].what
    (listed,) = (one for one in chapter.lists if one.title == "Images that are the same")
    assert len(listed.lines) == 1


def test_an_image_in_training_and_held_out_is_a_leak(images: Path) -> None:
    shutil.copy(images / "cat" / "00.png", images / "cat" / "twin.png")
    rows = ["cat/00.png,cat,train", "cat/twin.png,cat,test", "dog/00.png,dog,train"]
    columns = "path,label,split"
    found = on_data(table(images, rows, columns))
    assert found["leaks"].state == "broken"
    assert "cat/twin.png (cat, held out)" in found["leaks"].what
    rows[1] = "cat/twin.png,cat,train"
    assert "leaks" not in on_data(table(images, rows, columns))
    rows[1] = "cat/01.png,cat,test"
    found = on_data(table(images, rows, columns))
    assert "leaks" not in found
    assert found["duplicates"].state == "ok"


def test_groups_are_counted_and_those_of_two_classes_or_one_image_are_told(images: Path) -> None:
    rows = [f"{c}/{n:02}.png,{c},{c}-{n // 2}" for c in ("cat", "dog") for n in range(15)]
    found = on_data(table(images, rows))
    assert found["groups"].what.startswith("16 groups, the largest (cat-0) of 2")
    assert not {"mixed groups", "shared images"} & found.keys()
    rows[0] = "cat/00.png,cat,dog-0"
    found = on_data(table(images, rows))
    assert found["mixed groups"].state == "note"
    assert "1 group in more than one class: dog-0" in found["mixed groups"].what
    shutil.copy(images / "cat" / "01.png", images / "cat" / "02.png")
    assert "1 image in more than one group" in on_data(table(images, rows))["shared images"].what


def test_small_and_skewed_classes_are_told(images: Path) -> None:
    for n in range(1, 15):
        (images / "dog" / f"{n:02}.png").unlink()
    for n in range(15, 30):
        noise(n).save(images / "cat" / f"{n}.png")
    found = on_data(images, test_fraction=0.01)
    assert "dog (1)" in found["small classes"].what
    assert found["balance"].state == "note"
    assert "30 times" in found["balance"].what.replace(".0", "")
    (images / "bird").mkdir()
    found = on_data(images, test_fraction=0.01)
    assert "bird (0)" in found["small classes"].what
    assert "'bird' has no picture" in found["reading"].what
    for n in range(1, 15):
        noise(200 + n).save(images / "dog" / f"{n:02}.png")
    (images / "bird").rmdir()
    assert {f.state for f in on_data(images, test_fraction=0.1).values()} == {"ok"}


def test_what_is_never_tested_is_told(images: Path) -> None:
    rows = [f"{c}/{n:02}.png,{c},train" for c in ("cat", "dog") for n in range(15)]
    found = on_data(table(images, rows, "path,label,split"))
    assert found["held out"].state == "note"
    assert "never tested" not in found
    rows[0] = "cat/00.png,cat,test"
    found = on_data(table(images, rows, "path,label,split"))
    assert "held out" not in found
    assert "no held-out image of dog" in found["never tested"].what


def test_a_folder_of_sites_is_noticed(images: Path, tmp_path: Path) -> None:
    for name in ("north", "south"):
        shutil.copytree(images, tmp_path / "sites" / name)
    found = on_data(tmp_path / "sites")
    assert found["sites"].state == "note"
    assert "2 sites (north, south)" in found["sites"].what


# ------------------------------------------------------------------------------------ images
def on_images(folder: Path, draw: Callable[[int], Image.Image], **card: Any) -> dict[str, Finding]:
    """Examine 24 images that a function draws."""
    shutil.rmtree(folder, ignore_errors=True)
    for n in range(24):
        path = folder / f"class-{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(n).save(path)
    manifest = open_all(config(folder), silent)
    return by_name(look_at_pictures(manifest, replace(CARD, **card), silent).findings)


def test_images_like_the_backbones_own_are_fine(tmp_path: Path) -> None:
    found = on_images(tmp_path / "x", noise)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["images"].what == "a sample of 24 images: 32x32 pixels; RGB (24); 8 bits (24)"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 60, "much darker and much flatter"),
        (200, 256, "much brighter"),
        (120, 136, "much flatter"),
    ],
)
def test_the_gap_to_the_backbones_input_is_told_in_words(
    tmp_path: Path, low: int, high: int, said: str
) -> None:
    found = on_images(tmp_path / "x", lambda n: noise(n, low=low, high=high))["brightness"]
    assert found.state == "note"
    assert said in found.what
    assert found.cure


def test_the_gap_is_that_to_this_backbone(tmp_path: Path) -> None:
    def dim(n: int) -> Image.Image:
        return noise(n, high=140)

    assert on_images(tmp_path / "x", dim)["brightness"].state == "note"
    assert on_images(tmp_path / "x", dim, mean=(0.2, 0.2, 0.2))["brightness"].state == "ok"


def test_black_and_white_is_harsh(tmp_path: Path) -> None:
    def drawn(n: int) -> Image.Image:
        return Image.fromarray(
            np.repeat(np.eye(2, dtype=np.uint8) * (255 - n), 16, 0).repeat(16, 1)
        )

    assert "much harsher" in on_images(tmp_path / "x", drawn)["brightness"].what


def test_kinds_that_a_head_could_learn_instead_are_told(tmp_path: Path) -> None:
    def drawn(n: int) -> Image.Image:
        return noise(n).convert("L") if n % 2 else noise(n)

    assert on_images(tmp_path / "x", drawn)["mixed kinds"].state == "note"
    assert "mixed kinds" not in on_images(tmp_path / "x", lambda n: noise(n).convert("L"))


def test_bits_are_told(tmp_path: Path) -> None:
    def deep(n: int, bits: int = 12) -> Image.Image:
        values = np.random.default_rng(n).integers(0, 2**bits, (32, 32)).astype(np.uint16)
        return Image.fromarray(values)

    found = on_images(tmp_path / "x", deep)
    assert "I;16 (24); 12 bits (24)" in found["images"].what
    assert found["brightness"].state == "ok"  # scaled by its own white
    assert "mixed bits" not in found
    mixed = on_images(tmp_path / "x", lambda n: deep(n, 12 if n % 2 else 16))
    assert mixed["mixed bits"].state == "note"


def test_enlarged_cropped_and_blank_images_are_told(tmp_path: Path) -> None:
    assert (
        "4.0 times" in on_images(tmp_path / "x", lambda n: noise(n, size=(8, 8)))["enlarged"].what
    )
    long = on_images(tmp_path / "x", lambda n: noise(n, size=(40, 160)))
    assert "leaves 19.1 % of most images" in long["cropped"].what
    squashed = on_images(tmp_path / "x", lambda n: noise(n, size=(40, 160)), crop_mode="squash")
    assert "cropped" not in squashed
    one = on_images(
        tmp_path / "x", lambda n: Image.new("RGB", (32, 32), (n, 128, 128)) if n < 3 else noise(n)
    )
    assert one["blank images"].what.startswith("3 of 24 images")
    assert "class-0/0.png" in one["blank images"].what


def test_a_tint_is_not_called_bright(tmp_path: Path) -> None:
    def red(n: int) -> Image.Image:
        values = np.asarray(noise(n)) * np.array([0.35, 0, 0]) + np.array([160, 90, 140])
        return Image.fromarray(values.astype(np.uint8))

    assert (
        "much more of one colour"
        in on_images(tmp_path / "x", red, std=(0.1,) * 3)["brightness"].what
    )


def test_an_image_that_vanishes_meanwhile_is_a_finding(images: Path) -> None:
    manifest = open_all(config(images), silent)
    shutil.rmtree(images / "dog")
    found = look_at_pictures(manifest, CARD, silent).findings
    assert [finding.state for finding in found].count("broken") == 1
    assert by_name(found)["transform"].state == "ok"  # of those that were there


# ------------------------------------------------------------------------------------ machine
def test_a_device_that_is_not_there_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, wanted, state in (
        ({}, "auto", "ok"),
        ({}, "cpu", "ok"),
        ({}, "cuda", "broken"),
        ({"cuda": "H100"}, "cuda", "ok"),
        ({"cuda": "H100"}, "mps", "broken"),
        ({"cuda": "H100"}, "cpu", "ok"),
    ):
        monkeypatch.setattr(opening, "accelerators", lambda there=there: there)
        asked = SiteConfig.model_validate({"name": "n", "device": wanted})
        (found,) = guarded("device", partial(machine.look_at_device, asked))
        assert (found.state, bool(found.cure)) == (state, state == "broken")


def test_a_disk_too_small_for_the_features_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [next(machine.look_at_disk(n)).state for n in (1000, 10**18)]
    assert states == ["ok", "broken"]
    monkeypatch.setenv("FEDTL_CACHE_GB", "0.001")
    (found,) = machine.look_at_disk(10**7)
    assert (found.state, "FEDTL_CACHE_GB" in found.cure) == ("broken", True)


def test_a_clock_that_cannot_be_right_is_broken(tmp_path: Path) -> None:
    (tmp_path / "site.toml").touch()
    now = (tmp_path / "site.toml").stat().st_mtime
    for utc, state in ((now, "ok"), (0.0, "broken"), (now + 3e9, "broken"), (now - 7200, "broken")):
        (found,) = machine.look_at_clock(tmp_path, Reading(utc))
        assert (found.state, bool(found.cure)) == (state, state == "broken")


# ------------------------------------------------------------------------------------ privacy
def words(policy: SitePolicy, *, there: bool = True) -> dict[str, Finding]:
    return by_name(privacy.policy_in_words(policy, there=there))


def test_a_policy_is_told_in_plain_words() -> None:
    strict = words(STRICT, there=False)
    assert "strict default holds" in strict["policy"].what
    assert "no budget of its own" in strict["budget"].what
    assert (strict["updates"].state, strict["results"].state) == ("ok", "ok")
    kept = words(SitePolicy(Budget(8, 1e-5, 365), only_sealed=True, least_sites=3))
    assert "epsilon 8 at delta 1e-05 in 365 days" in kept["budget"].what
    assert "hidden in a sum over sites" in kept["updates"].what
    assert "3 sites" in kept["sums"].what
    assert {finding.state for finding in kept.values()} == {"ok"}
    lax = words(SitePolicy(unprotected=True, clear_metrics=True, recipes=("ab" * 32,)))
    assert (lax["updates"].state, lax["results"].state) == ("note", "note")
    assert "only 1 may be run: abababababab..." in lax["recipes"].what


def test_rules_that_make_no_sense_for_the_data_are_told(images: Path) -> None:
    manifest = open_all(config(images), silent)
    found = lambda **rules: by_name(privacy.policy_against_data(SitePolicy(**rules), manifest))  # noqa: E731
    assert not found(budget=Budget(8, 1e-5), least_examples=20)
    assert found(least_examples=31)["examples"].state == "broken"
    assert found(budget=Budget(8, 0.1))["delta"].state == "note"
    assert found(clear_metrics=True, suppress_below=30)["suppressed"].state == "note"


@pytest.fixture
def site(tmp_path: Path, images: Path) -> SiteFolder:
    make_site(tmp_path / "site", name="north", source=str(images))
    return read_site(tmp_path / "site")


def spend(site: SiteFolder, manifest: Manifest, epsilon: float) -> None:
    """Charge training records with one release that costs a little less than epsilon."""
    low, high = 0.01, 1000.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        too_much = epsilon_of(GaussianEvent(middle), 1e-5) > epsilon
        low, high = (middle, high) if too_much else (low, middle)
    data = DataSet.of(manifest.digests[~manifest.test][:3])
    with Ledger.open(site.folder / "ledger.sqlite") as ledger:
        ledger.charge(RequestKey("run", 1, "train", "north"), data, GaussianEvent(high))


def on_ledger(site: SiteFolder, manifest: Manifest | None, **clock: Any) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for finding in privacy.look_at_ledger(site, manifest, **clock):
        found.setdefault(finding.name, finding)
    return found


@pytest.mark.parametrize(
    ("spent", "state"), [(3.0, "ok"), (7.0, "note"), (7.99999999, "note"), (8.5, "broken")]
)
def test_what_is_spent_is_held_against_the_budget(
    site: SiteFolder, spent: float, state: str
) -> None:
    manifest = open_all(site.config, silent)
    assert on_ledger(site, manifest)["ledger"].what.startswith("none yet")
    spend(site, manifest, spent)
    found = on_ledger(site, manifest)
    assert found["ledger"].what.startswith("whole, 1 entry, ")
    assert found["spent"].state == state
    assert f"epsilon {spent:.2f} of 8" in found["spent"].what
    assert on_ledger(site, None)["spent"].state == state  # also where the data cannot be read


def test_a_ledger_knows_that_the_clock_was_set_back(site: SiteFolder) -> None:
    manifest = open_all(site.config, silent)
    spend(site, manifest, 1.0)
    with Ledger.open(site.folder / "ledger.sqlite", read_only=True) as ledger:
        last = ledger.entries()[-1].reading
    early = on_ledger(site, manifest, clock=replace(last, utc=last.utc - 7200))
    assert "2 h 0 min before the ledger's last entry" in early["ledger clock"].what
    ahead = on_ledger(site, manifest, clock=replace(last, utc=last.utc + 7200))
    assert ("ledger clock" in ahead) == bool(last.boot)
    assert "ledger clock" not in on_ledger(site, manifest)


def test_a_state_folder_among_the_images_is_broken(site: SiteFolder, images: Path) -> None:
    assert not list(privacy.look_at_place(site))
    shutil.copytree(site.folder, images / "site")
    (found,) = privacy.look_at_place(read_site(images / "site"))
    assert (found.state, bool(found.cure)) == ("broken", True)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_files_that_others_can_change_are_broken(site: SiteFolder) -> None:
    (site.folder / "identity.key").write_bytes(b"key")
    (site.folder / "identity.key").chmod(0o600)
    for name in ("policy.toml", "identity.key"):
        for mode, state in ((0o600, "ok"), (0o640, "note"), (0o660, "broken"), (0o600, "ok")):
            (site.folder / name).chmod(mode)
            (found,) = privacy.look_at_permissions(site.folder)
            assert (found.state, name in found.what) == (state, state != "ok")
    for mode, state in ((0o2710, "ok"), (0o750, "note")):  # the SuperNode's group may walk through
        site.folder.chmod(mode)
        (found,) = privacy.look_at_permissions(site.folder)
        assert found.state == state


# ------------------------------------------------------------------------------------ the whole
def all_of(site: SiteFolder, changes: Mapping[str, Any] | None = None) -> dict[str, Finding]:
    values = site.config.model_dump()
    for table_name, inner in {"backbone": {"image_size": 32}, **(changes or {})}.items():
        values[table_name].update(inner)
    chapters = examine_site(replace(site, config=SiteConfig.model_validate(values)))
    return by_name(finding for chapter in chapters for finding in chapter.findings)


def test_a_whole_site_is_ready(site: SiteFolder) -> None:
    found = all_of(site)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "for 30 images, measured on a few; 0 are made already" in found["features"].what
    assert "tf_efficientnet_lite0" in found["backbone"].what


def test_what_cannot_be_looked_at_is_a_finding_and_the_rest_is_looked_at(
    site: SiteFolder, images: Path
) -> None:
    (site.folder / "ledger.sqlite").write_bytes(b"not a ledger")
    changes = {"data": {"source": str(images / "none")}, "server": {"root_certificates": "/none"}}
    found = all_of(site, changes)
    bad = {name for name, finding in found.items() if finding.state == "broken"}
    assert bad == {"data", "ledger", "root_certificates"}
    assert all(found[name].cure for name in bad)
    assert found["clock"].state == "ok"
    unknown = all_of(site, {"backbone": {"name": "tf_efficientnet_lite00"}})["backbone"]
    assert (unknown.state, "Did you mean" in unknown.cure) == ("broken", True)
    assert "data.source" in all_of(site, {"data": {"source": ""}})["data"].cure


def test_a_site_that_has_joined_is_told_whether_its_server_answers(
    site: SiteFolder, tmp_path: Path
) -> None:
    make_coordinator(tmp_path / "c", address="127.0.0.1:9", name="c")
    roots = str(tmp_path / "c" / "tls" / "ca.crt")
    config = site.config.model_dump()
    config["server"] |= {"address": "127.0.0.1:9", "root_certificates": roots}
    joined = replace(site, config=SiteConfig.model_validate(config))
    for connect, state in ((True, "broken"), (False, "ok")):
        chapters = examine_site(joined, connect=connect)
        (found,) = [f for c in chapters for f in c.findings if f.name == "server"]
        assert found.state == state
        assert "127.0.0.1:9" in found.what


def test_a_tampered_ledger_is_broken(site: SiteFolder) -> None:
    manifest = open_all(site.config, silent)
    spend(site, manifest, 1.0)
    database = sqlite3.connect(site.folder / "ledger.sqlite")
    ((sql,),) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'entries_update'")
    database.execute("DROP TRIGGER entries_update")
    database.execute("UPDATE entries SET content = replace(content, 'train', 'other')")
    database.execute(sql)
    database.commit()
    database.close()
    found = all_of(site)["ledger"]
    assert found.state == "broken"
    assert "Entry 1" in found.what
