"""What a site's data hold: counts, duplicates, groups, unreadable files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from fedtl.data import Manifest
from fedtl.data.files import FileSource, Progress
from fedtl.errors import DataError
from fedtl.launch.opening import open_site_data
from fedtl.launch.site_check.guard import guarded
from fedtl.report.canvas import Plot
from fedtl.report.plot_site import plot_classes
from fedtl.report.site_page import Chapter, Listed
from fedtl.report.words import count, plural, short
from fedtl.site.config import SiteConfig
from fedtl.types import Finding

FEW = 10
"""Training examples of a class below which a head learns next to nothing of it."""
SKEWED = 10.0
"""Times that the largest class may be larger than the smallest without a word."""
_ANY = 10**9


def open_all(config: SiteConfig, progress: Progress) -> Manifest:
    """Open a site's data as training does, but find every unreadable file first.

    Raises
    ------
    FedtlError
        They cannot be opened at all.
    """
    try:
        return open_site_data(config, progress, tolerate_unreadable=_ANY)
    except DataError as error:
        if error.code != "data.empty":
            raise
    # says which files are unreadable
    return open_site_data(config, progress, tolerate_unreadable=config.data.tolerate_unreadable)


def look_at_data(manifest: Manifest, config: SiteConfig) -> Chapter:
    """Examine a data set without reading a picture again."""
    twins = _twins(manifest)
    looks = (
        ("data", partial(_counts, manifest)),
        ("classes", partial(_classes, manifest)),
        ("unreadable files", partial(_unreadable, manifest, config)),
        ("duplicates", partial(_duplicates, manifest, twins)),
        ("groups", partial(_groups, manifest)),
    )
    findings = [finding for name, look in looks for finding in guarded(name, look)]
    return Chapter("Data", tuple(findings), (_plot(manifest),), tuple(_lists(manifest, twins)))


def _counts(manifest: Manifest) -> Iterator[Finding]:
    n, n_test = len(manifest), int(manifest.test.sum())
    what = (
        f"{plural(n, 'image')} in {len(manifest.classes)} classes: {count(n - n_test)} for "
        f"training, {count(n_test)} held out"
    )
    yield Finding("data", "ok", what)
    if not n_test:
        cure = "Raise data.test_fraction, or add images."
        yield Finding("held out", "note", "no image is held out for testing", cure)
    if manifest.sites is not None and (sites := sorted(set(manifest.sites))):
        what = f"the data name {plural(len(sites), 'site')} ({_some(sites)}); all are used here"
        cure = "Name the folder of one site in data.source, if others have their own machines."
        yield Finding("sites", "note" if len(sites) > 1 else "ok", what, cure)
    if manifest.notes:
        yield Finding("reading", "note", " ".join(manifest.notes[:3]))


def _classes(manifest: Manifest) -> Iterator[Finding]:
    train, test = _per_class(manifest)
    sizes = {name: int(n) for name, n in zip(manifest.classes, train, strict=True)}
    small = [f"{short(name, 30)} ({n})" for name, n in sizes.items() if n < FEW]
    if small:
        what = f"with fewer than {FEW} training images: {_some(small)}"
        cure = "Collect more, or merge the class with another at all sites of the federation."
        yield Finding("small classes", "note", what, cure)
    else:
        yield Finding("small classes", "ok", f"every class has {FEW} training images or more")
    held = [
        short(c, 30) for c, t, n in zip(manifest.classes, test, train, strict=True) if n > t == 0
    ]
    if held and manifest.test.any():
        cure = "Raise data.test_fraction, or collect more."
        yield Finding("never tested", "note", f"no held-out image of {_some(held)}", cure)
    there = {name: n for name, n in sizes.items() if n}
    most, least = max(there, key=there.__getitem__), min(there, key=there.__getitem__)
    times = there[most] / there[least]
    told = _some([f"{n} {short(c, 30)}" for c, n in sorted(there.items(), key=_size)], 6)
    what = f"for training {told}; the largest class has {times:.1f} times as many as the smallest"
    if times > SKEWED:
        cure = "Expect a head that favours the large class; look at the results of each class."
        yield Finding("balance", "note", what, cure)
    else:
        yield Finding("balance", "ok", what)


def _size(item: tuple[str, int]) -> int:
    return -item[1]


def _unreadable(manifest: Manifest, config: SiteConfig) -> Iterator[Finding]:
    problems, tolerated = manifest.problems, config.data.tolerate_unreadable
    if not problems:
        yield Finding("unreadable files", "ok", "none")
        return
    reasons = Counter(problem.reason for problem in problems)
    told = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    first = _some([f"{p.path} ({p.reason})" for p in problems])
    what = f"{plural(len(problems), 'file')} cannot be used ({told}): {first}"
    cure = f"Mend or remove them, or set data.tolerate_unreadable = {len(problems)}."
    if len(problems) > tolerated:
        yield Finding("unreadable files", "broken", what, cure)
    else:
        yield Finding(
            "unreadable files",
            "note",
            f"{what}; left out, as data.tolerate_unreadable = {tolerated} allows",
        )


def _twins(manifest: Manifest) -> list[list[int]]:
    """Return the rows of every content that occurs more than once."""
    rows: dict[bytes, list[int]] = {}
    for row, digest in enumerate(manifest.digests):
        rows.setdefault(digest.tobytes(), []).append(row)
    return [found for found in rows.values() if len(found) > 1]


def _duplicates(manifest: Manifest, twins: list[list[int]]) -> Iterator[Finding]:
    if not twins:
        yield Finding("duplicates", "ok", "no two images are the same")
        return
    copies = sum(len(rows) - 1 for rows in twins)
    what = f"{count(copies)} of {count(len(manifest))} images repeat another to the last bit"
    cure = "Remove the copies: an image that is there twice is protected half as well."
    yield Finding("duplicates", "note", f"{what}, e.g. {_pair(manifest, twins[0])}", cure)
    if torn := [rows for rows in twins if len({int(manifest.labels[r]) for r in rows}) > 1]:
        what = f"{plural(len(torn), 'image')} with contradicting labels, e.g. " + _pair(
            manifest, torn[0]
        )
        cure = "Decide which label is right, and remove the other file."
        yield Finding("contradictions", "broken", what, cure)
    if leaks := [rows for rows in twins if 0 < int(manifest.test[rows].sum()) < len(rows)]:
        what = f"{plural(len(leaks), 'image')} both in training and held out, e.g. " + _pair(
            manifest, leaks[0]
        )
        cure = "Remove one of the two, else the held-out result flatters."
        yield Finding("leaks", "broken", what, cure)
    groups = manifest.groups
    if groups is not None and (
        shared := [rows for rows in twins if len({groups[row] for row in rows}) > 1]
    ):
        what = f"{plural(len(shared), 'image')} in more than one group, e.g. " + _pair(
            manifest, shared[0]
        )
        cure = "One patient under two ids counts as two; give the rows the same group."
        yield Finding("shared images", "note", what, cure)


def _groups(manifest: Manifest) -> Iterator[Finding]:
    if manifest.groups is None:
        cure = "Patients with several images: list them in a .csv with the column group."
        yield Finding("groups", "ok", "none: every image counts as a patient of its own", cure)
        return
    sizes = Counter(manifest.groups)
    largest, most = sizes.most_common(1)[0]
    what = f"{plural(len(sizes), 'group')}, the largest ({short(largest, 30)}) of {count(most)}"
    yield Finding("groups", "ok", f"{what}; none is torn apart between training and testing")
    labels: dict[str, set[int]] = {}
    for group, label in zip(manifest.groups, manifest.labels.tolist(), strict=True):
        labels.setdefault(group, set()).add(label)
    mixed = [group for group, found in labels.items() if len(found) > 1]
    if mixed:
        what = f"{plural(len(mixed), 'group')} in more than one class: {_some(mixed)}"
        cure = "Right for lesions of one patient; wrong where the label is the patient's."
        yield Finding("mixed groups", "note", what, cure)


def _per_class(manifest: Manifest) -> tuple[list[int], list[int]]:
    n = len(manifest.classes)
    parts = (manifest.labels[~manifest.test], manifest.labels[manifest.test])
    train, test = (np.bincount(part, minlength=n).tolist() for part in parts)
    return train, test


def _plot(manifest: Manifest) -> Plot:
    return plot_classes(manifest.classes, *_per_class(manifest))


def _lists(manifest: Manifest, twins: list[list[int]]) -> Iterator[Listed]:
    if manifest.problems:
        lines = tuple(f"{p.path}: {p.reason}" for p in manifest.problems)
        yield Listed("Files that cannot be used", lines)
    if twins:
        lines = tuple(" = ".join(name_of(manifest, row) for row in rows) for rows in twins)
        yield Listed("Images that are the same", lines)
    if manifest.notes:
        yield Listed("Notes from reading", manifest.notes)


def _pair(manifest: Manifest, rows: list[int]) -> str:
    return " = ".join(name_of(manifest, row) for row in rows[:2])


def name_of(manifest: Manifest, row: int) -> str:
    """Return a row as its owner finds it again."""
    label = manifest.classes[int(manifest.labels[row])]
    path = manifest.source.paths[row] if isinstance(manifest.source, FileSource) else f"row {row}"
    return f"{path} ({short(label, 20)}, {'held out' if manifest.test[row] else 'training'})"


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {count(len(names) - most)} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
