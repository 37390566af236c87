"""What the backbone will see: sizes and kinds of a sample of images, and their pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedtl.backbone import BackboneCard, Transform
from fedtl.data import Manifest, Picture, bit_depth
from fedtl.data.files import Progress
from fedtl.launch.site_check.data import name_of
from fedtl.launch.site_check.guard import guarded
from fedtl.report.plot_site import CHANNELS, plot_pixels
from fedtl.report.site_page import Chapter, Listed
from fedtl.report.words import count, percent, plural
from fedtl.types import Finding

SAMPLE = 128
"""Images that are looked at, spread evenly over the data."""
BINS = 32
FAR, FLAT, HARSH = 0.2, 0.08, 0.42
"""On the scale 0..1: how far off a mean, and how small or large a spread, is worth a word."""
BLURRED = 2.0
"""Times that an image is enlarged without a word."""
KEPT = 0.6
"""Share of an image that the centre crop leaves without a word."""
_ONE_COLOUR = 1.5 / 255


@dataclass(slots=True)
class Seen:
    """What a sample of images adds up to; the images themselves are not kept.

    Attributes
    ----------
    sums, squares : NDArray
        ``[3]``, of all pixels of the transformed images on the scale 0..1.
    shares : NDArray
        ``[3, BINS]``, counts of pixels by brightness.
    blank : list of int
        Rows whose image has one colour.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    bits: Counter[int] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    shares: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))
    n_pixels: int = 0
    blank: list[int] = field(default_factory=list)

    def add(self, row: int, picture: Picture, transform: Transform) -> None:
        """Look at one image."""
        height, width = picture.pixels.shape[:2]
        self.sizes.append((width, height))
        self.modes[picture.mode] += 1
        self.bits[bit_depth(picture)] += 1
        self.notes[transform.describe(picture)] += 1
        mean, std = (np.array(v)[:, None, None] for v in (transform.mean, transform.std))
        pixels = np.clip(transform.apply(picture) * std + mean, 0.0, 1.0).reshape(3, -1)
        if float(np.ptp(pixels, axis=1).max()) < _ONE_COLOUR:
            self.blank.append(row)
        self.sums += pixels.sum(1)
        self.squares += (pixels**2).sum(1)
        self.n_pixels += pixels.shape[1]
        at = np.minimum((pixels * BINS).astype(np.int64), BINS - 1)
        self.shares += np.stack([np.bincount(line, minlength=BINS) for line in at])

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean brightness per channel, 0..1."""
        return self.sums / max(self.n_pixels, 1)

    @property
    def spread(self) -> NDArray[np.float64]:
        """Standard deviation of the brightness per channel."""
        variance = self.squares / max(self.n_pixels, 1) - self.mean**2
        return np.sqrt(np.maximum(variance, 0.0))


def look_at_pictures(manifest: Manifest, card: BackboneCard, progress: Progress) -> Chapter:
    """Read a sample of images, bring it into the backbone's form, and say what that does."""
    seen, transform = Seen(), card.transform
    rows = np.unique(np.linspace(0, len(manifest) - 1, min(SAMPLE, len(manifest))).astype(int))

    def read() -> Iterator[Finding]:
        for done, row in enumerate(rows.tolist(), 1):
            seen.add(row, manifest.source.read(row), transform)
            progress(done, len(rows))
        yield from ()

    findings = guarded("images", read)
    if not seen.sizes:
        return Chapter("Images", tuple(findings))
    for name, look in (
        ("images", partial(_kinds, seen)),
        ("transform", partial(_transform, seen, transform)),
        ("blank images", partial(_blank, seen, manifest)),
        ("brightness", partial(_gap, seen, transform)),
    ):
        findings += guarded(name, look)
    said = next((f.what for f in findings if f.name == "brightness"), "brightness")
    title = said[0].upper() + said[1:].partition(":")[0]
    plot = plot_pixels(seen.shares / max(seen.n_pixels, 1), card.mean, card.std, title)
    done = tuple(f"{note} ({count(n)}x)" for note, n in seen.notes.most_common())
    lists = Listed(f"What is done to the {plural(len(rows), 'image')} of the sample", done)
    return Chapter("Images", tuple(findings), (plot,), (lists, _channels(seen, transform)))


def _kinds(seen: Seen) -> Iterator[Finding]:
    widths, heights = zip(*seen.sizes, strict=True)
    low, high = (min(widths), min(heights)), (max(widths), max(heights))
    size = f"{low[0]}x{low[1]}"
    size += "" if low == high else f" to {high[0]}x{high[1]}"
    modes = ", ".join(f"{mode} ({n})" for mode, n in seen.modes.most_common())
    bits = ", ".join(f"{bits} bits ({n})" for bits, n in sorted(seen.bits.items()))
    sample = plural(len(seen.sizes), "image")
    yield Finding("images", "ok", f"a sample of {sample}: {size} pixels; {modes}; {bits}")
    grey = [mode for mode in seen.modes if mode in ("L", "1") or mode.startswith("I")]
    if grey and len(grey) < len(seen.modes):
        what = f"grey and colour images are mixed: {modes}"
        cure = "Right if classes have both; else a head may learn the kind of file, not the image."
        yield Finding("mixed kinds", "note", what, cure)
    if len(seen.bits) > 1:
        what = f"images use different numbers of bits: {bits}"
        cure = "Each is scaled by its own white; save them alike if their brightness matters."
        yield Finding("mixed bits", "note", what, cure)


def _transform(seen: Seen, transform: Transform) -> Iterator[Finding]:
    note, n = seen.notes.most_common(1)[0]
    more = len(seen.notes) - 1
    yield Finding(
        "transform",
        "ok",
        f"{note} ({n} of {len(seen.sizes)})" + (f"; {plural(more, 'other way')}" if more else ""),
    )
    times = float(np.median([transform.size / min(size) for size in seen.sizes]))
    if times > BLURRED:
        what = f"most images are enlarged {times:.1f} times: the backbone sees blur"
        cure = "Set a smaller backbone.image_size here and in the recipe; it is faster, too."
        yield Finding("enlarged", "note", what, cure)
    kept = float(np.median([_kept(size, transform) for size in seen.sizes]))
    if kept < KEPT:
        what = f"the centre crop leaves {percent(kept)} of most images"
        cure = "See that what matters is in the middle, or crop the images beforehand."
        yield Finding("cropped", "note", what, cure)


def _kept(size: tuple[int, int], transform: Transform) -> float:
    """Return the share of an image that the crop keeps."""
    short, long = min(size), max(size)
    if short < transform.size:
        return 1.0
    shape = 1.0 if transform.crop_mode == "squash" else short / long
    return transform.crop_pct**2 * shape


def _blank(seen: Seen, manifest: Manifest) -> Iterator[Finding]:
    if seen.blank:
        what = (
            f"{len(seen.blank)} of {len(seen.sizes)} images have one colour and nothing else, e.g. "
            + name_of(manifest, seen.blank[0])
        )
        cure = "See whether they were exported whole; remove those that show nothing."
        yield Finding("blank images", "note", what, cure)


def _gap(seen: Seen, transform: Transform) -> Iterator[Finding]:
    """Compare pixels with what the weights are normalised by."""
    mean, spread = float(seen.mean.mean()), float(seen.spread.mean())
    expected, usual = float(np.mean(transform.mean)), float(np.mean(transform.std))
    faults = []
    if abs(mean - expected) > FAR:
        faults.append("much darker" if mean < expected else "much brighter")
    elif np.abs(seen.mean - np.array(transform.mean)).max() > FAR:
        faults.append("much more of one colour")
    if spread < FLAT:
        faults.append("much flatter")
    elif spread > HARSH:
        faults.append("much harsher")
    numbers = (
        f"they average {mean:.2f} with spread {spread:.2f} from black (0) to white (1); it is "
        f"normalised by {expected:.2f} and {usual:.2f}"
    )
    if faults:
        what = f"your images are {' and '.join(faults)} than the backbone's input: {numbers}"
        cure = (
            "Features work all the same, if less well. See that brightness was exported rightly "
            "(window, inversion); for some images another backbone suits better."
        )
        yield Finding("brightness", "note", what, cure)
    else:
        yield Finding("brightness", "ok", f"your images are like the backbone's input: {numbers}")


def _channels(seen: Seen, transform: Transform) -> Listed:
    lines = (
        f"{name}: mean {mean:.3f} (expected {wanted:.3f}), "
        f"spread {spread:.3f} (expected {usual:.3f})"
        for name, mean, spread, wanted, usual in zip(
            CHANNELS, seen.mean, seen.spread, transform.mean, transform.std, strict=True
        )
    )
    return Listed("Brightness of each channel, 0 to 1", tuple(lines))
