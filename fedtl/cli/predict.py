"""``fedtl predict``: ask a finished head about pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtl.cli.screen import clean_line, err, out, print_json, stoppable, warnings_shown
from fedtl.errors import DataError

if TYPE_CHECKING:
    from fedtl.data import Picture
    from fedtl.modules import Module

PICTURES_AT_ONCE = 64


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its module folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files or folders.")],
    top: Annotated[int, typer.Option(min=1, help="Show so many classes per image.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which class each image belongs to, and how probable that is.

    RUN is a run folder or its module folder, IMAGE a file or a folder of pictures. Images that
    cannot be read are listed with the reason; then the exit code is 1.
    """
    from fedtl.modules import load_module

    module = load_module(run / "module" if (run / "module").is_dir() else run)
    answers = Answers(module.classes, top)
    paths = iter([path for given in images for path in _files(given)])
    with stoppable(), warnings_shown(err()):
        while batch := list(islice(paths, PICTURES_AT_ONCE)):
            answers.ask(module, batch)
            if not as_json:
                answers.print_new()
    if as_json:
        print_json(
            {"run": str(run), "predictions": answers.found, "unreadable": answers.unreadable}
        )
    for problem in answers.unreadable:
        text = clean_line(f"{problem['image']}: {problem['reason']}")
        err().print(text, style="red", markup=False, soft_wrap=True)
    if answers.unreadable:
        raise typer.Exit(1)


@dataclass
class Answers:
    """What was answered so far.

    Attributes
    ----------
    found : list of dict
        ``image``, ``label``, ``probability`` and ``probabilities`` of the ``top`` classes.
    unreadable : list of dict
        ``image`` and ``reason``.
    """

    classes: tuple[str, ...]
    top: int
    found: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    _printed: int = 0

    def ask(self, module: Module, paths: list[Path]) -> None:
        """Ask the module about a batch of files."""
        pictures = [(path, picture) for path in paths if (picture := self._read(path))]
        if not pictures:
            return
        answers = module.predict([picture for _, picture in pictures])
        for (path, _), answer in zip(pictures, answers, strict=True):
            likely = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
            self.found.append(
                {
                    "image": str(path),
                    "label": answer.label,
                    "probability": answer.probability,
                    "probabilities": dict(likely[: self.top]),
                }
            )

    def print_new(self) -> None:
        """Print the answers that were not printed yet, one line per image."""
        console = out()
        for row in self.found[self._printed :]:
            likely = ", ".join(
                f"{name} {100 * p:.1f} %" for name, p in row["probabilities"].items()
            )
            console.print(clean_line(f"{row['image']}: {likely}"), markup=False, soft_wrap=True)
        self._printed = len(self.found)

    def _read(self, path: Path) -> Picture | None:
        try:
            return read_picture(path)
        except DataError as error:
            self.unreadable.append({"image": str(path), "reason": str(error)})
            return None


def read_picture(path: Path) -> Picture:
    """Read one picture file that nobody has vouched for.

    Raises
    ------
    DataError
        It does not exist, is no ordinary file, is too large, or is no picture.
    """
    from fedtl.data import decode
    from fedtl.data.files import MAX_BYTES

    if not path.is_file():
        what = "is not an ordinary file" if path.exists() else "does not exist"
        raise DataError(f"The file {what}.", code="data.missing")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError("The file is too large to be a picture.", code="data.too-large")
        return decode(path.read_bytes(), place="The file")
    except OSError as error:
        raise DataError(f"The file cannot be read ({error.strerror}).") from error


def _files(given: Path) -> Iterator[Path]:
    """Yield a file as it is, and the pictures of a folder in order."""
    from fedtl.data.images import SUFFIXES

    if not given.is_dir():
        yield given
        return
    inside = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES)
    pictures = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    if not pictures:
        raise DataError(
            f"The folder '{given}' holds no pictures.",
            next_step=f"Name files, or a folder with {', '.join(SUFFIXES)} files.",
            code="data.empty",
        )
    yield from pictures
