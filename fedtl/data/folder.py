"""A folder of class folders, or of sites that each hold class folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedtl.data.files import Entry, Progress, index
from fedtl.data.images import SUFFIXES
from fedtl.data.manifest import Problem
from fedtl.data.rows import Rows, check_distinct, ordered
from fedtl.errors import DataError

# Pictures of formats that are not read must be counted, not passed over like a README.
FOREIGN = (".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".dcm", ".dicom", ".nii")
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True, slots=True)
class _Listing:
    root: Path
    problems: list[Problem] = field(default_factory=list)

    def children(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return what is visible in a folder, in name order."""
        try:
            with os.scandir(folder) as found:
                return sorted((e for e in found if not _hidden(e.name)), key=lambda e: e.name)
        except OSError as error:
            raise DataError(
                f"The folder '{folder}' cannot be listed ({error.strerror}).",
                next_step="Give this account the right to read it.",
                code="data.unreadable",
            ) from error

    def folders(self, children: Iterable[os.DirEntry[str]]) -> list[Path]:
        """Pick out the folders; a linked one is a problem: it can lead out or in circles."""
        own = []
        for entry in children:
            if entry.is_dir(follow_symlinks=False):
                own.append(Path(entry.path))
            elif _is_folder(entry):
                inside = _inside(self.root, Path(entry.path))
                self.note(entry.path, "link" if inside else "outside")
        return own

    def pictures(self, folder: Path) -> Iterator[str]:
        """Yield the paths of all pictures below a folder, relative to the root."""
        waiting = [folder]
        while waiting:
            children = self.children(waiting.pop())
            files = (entry for entry in children if not _is_folder(entry))
            yield from (self.relative(file.path) for file in files if self.readable(file))
            waiting += reversed(self.folders(children))

    def readable(self, file: os.DirEntry[str]) -> bool:
        """Tell a picture from what is passed over, and note what should have been one."""
        suffix = Path(file.name).suffix.lower()
        if suffix in FOREIGN:
            self.note(file.path, "unsupported")
            return False
        wanted = suffix in SUFFIXES or not suffix
        if wanted and file.is_symlink() and not _inside(self.root, Path(file.path)):
            self.note(file.path, "outside")
            return False
        return wanted

    def relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def note(self, path: str, reason: str) -> None:
        self.problems.append(Problem(self.relative(path), reason))


def open_folder(
    root: Path, *, classes: Sequence[str] = (), progress: Progress | None = None
) -> Rows:
    """List and check ``root/<class>/**/<picture>`` or ``root/<site>/<class>/**/<picture>``.

    The second layout is assumed if every sub-folder holds folders and no files. Hidden files,
    clutter such as ``Thumbs.db`` and files with other suffixes (``.txt``, ``.csv``) are passed
    over; a file without a suffix is tried. Links that leave the folder are not followed.

    Raises
    ------
    DataError
        No class folders, confusable class names, or a class that only one of several sites knows
        and ``classes`` does not list.
    """
    listing = _Listing(root.resolve())
    tops = listing.folders(listing.children(listing.root))
    if not tops and not listing.problems:
        raise DataError(
            f"The folder '{root}' has no class folders.",
            next_step="Make one sub-folder per class and put the pictures into them.",
            code="data.empty",
        )
    by_site = bool(tops) and all(_holds_only_folders(listing, top) for top in tops)
    pairs = _site_pairs(listing, tops) if by_site else [("", top) for top in tops]
    names = ordered(folder.name for _, folder in pairs)
    check_distinct(names, f"The folder '{root}'")
    if by_site:
        _check_shared(pairs, classes, root)
    entries = [
        Entry(path, folder.name, site=site)
        for site, folder in pairs
        for path in listing.pictures(folder)
    ]
    return index(
        listing.root.name,
        listing.root,
        entries,
        classes=names,
        problems=listing.problems,
        notes=_notes(listing, names, entries),
        progress=progress,
    )


def _hidden(name: str) -> bool:
    return name.startswith((".", "@")) or name.lower() in _CLUTTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _inside(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links
        return False


def _holds_only_folders(listing: _Listing, folder: Path) -> bool:
    children = listing.children(folder)
    return bool(children) and all(child.is_dir(follow_symlinks=False) for child in children)


def _site_pairs(listing: _Listing, sites: Sequence[Path]) -> list[tuple[str, Path]]:
    return [
        (site.name, folder) for site in sites for folder in listing.folders(listing.children(site))
    ]


def _check_shared(pairs: Sequence[tuple[str, Path]], classes: Sequence[str], root: Path) -> None:
    knowing: dict[str, list[str]] = {}
    for site, folder in pairs:
        knowing.setdefault(folder.name, []).append(site)
    if len({site for site, _ in pairs}) == 1:
        return
    for name, sites in knowing.items():
        if len(sites) == 1 and name not in classes:
            raise DataError(
                f"'{root}' was read as <site>/<class>/<picture>, but only the site {sites[0]!r} "
                f"has the class {name!r}.",
                next_step="Name the class like the other sites do, or list it in `classes`. If the "
                "upper folders are classes, put the pictures directly into them.",
                code="data.classes",
            )


def _notes(listing: _Listing, names: Sequence[str], entries: Sequence[Entry]) -> list[str]:
    empty = sorted(set(names) - {entry.label for entry in entries})
    loose = [
        child
        for child in listing.children(listing.root)
        if not _is_folder(child) and Path(child.name).suffix.lower() in SUFFIXES
    ]
    notes = [f"The class {name!r} has no picture." for name in empty]
    if loose:
        notes.append(f"{len(loose)} pictures lie outside the class folders and were left out.")
    return notes
