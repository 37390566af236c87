"""The comparisons: who runs, and which lines of the table come of it; see ``run.py``."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import peer_heads
from measure import Bench, Figures, Line, middle, ratios
from strategies import strategies, study
from wire import FULL_WIRE, QUICK_WIRE, WireSizes, wire

RATE = "client_rounds_per_second"
RECIPE = """\
name = "images"
evaluate_every = 0
data = { source = "fashion-mnist", limit = 3000 }
partition = { kind = "iid", sites = 10 }
backbone = { taps = "final", image_size = 128 }
privacy = { enabled = false }
compare = { without_privacy = false, local_only = false }

[train]
rounds = 10
local_steps = 10
sampling = "shuffle"
batch_size = 32
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the jobs are: the aims' own sizes, or small ones for a quick look."""

    sites: int = 100
    batches: int = 8
    rows: int = 60_000
    cohorts: tuple[int, int, int] = (100, 1000, 10_000)
    image_rounds: int = 2
    secure: tuple[int, int] = (10, 100)
    wire: WireSizes = FULL_WIRE
    study: tuple[int, int, int, int] = (100, 600, 20, 3)


QUICK = Sizes(
    sites=10,
    batches=2,
    rows=6_000,
    cohorts=(40, 80, 160),
    image_rounds=1,
    secure=(4, 8),
    wire=QUICK_WIRE,
    study=(10, 60, 3, 2),
)


def extraction(bench: Bench, sizes: Sizes) -> Iterator[Line]:
    """Compare feature extraction with eager PyTorch's, speed and numbers."""
    images, features = bench.work / "images.npy", bench.work / "features.npy"
    files = ("--input", images, "--features", features, "--batches", sizes.batches)
    found = bench.alternate(
        {
            "eager PyTorch, extraction": bench.peer("peer_eager_extract.py", *files),
            "fedtl, extraction": bench.own("own_extract.py", *files),
        }
    )
    eager, own = found.values()
    what, note = "feature extraction", "extraction: lite0, 224 px, batches of 32, fp32, 2 threads"
    rate = "images_per_second"
    yield Line(
        what,
        "eager PyTorch",
        5,
        True,
        ratios(own, eager, rate),
        "x",
        f"{middle(own, rate):.0f} and {middle(eager, rate):.0f} images/s",
        note,
    )
    differences = tuple(f["largest_difference"] / f["largest_feature"] for f in own)
    largest = f"largest feature {middle(own, 'largest_feature'):.2f}"
    yield Line(
        "largest difference / largest feature",
        "eager PyTorch",
        1e-4,
        False,
        differences,
        "",
        largest,
    )


def heads(bench: Bench, sizes: Sizes) -> Iterator[Line]:
    """Compare training of heads on cached features with Flower on Ray and pfl; price DP-SGD."""
    path = bench.work / "features.npz"
    peer_heads.write_features(path, sites=sizes.sites)

    def own(*options: str) -> Callable[[], Figures]:
        return bench.own("own_heads.py", path, *options)

    found = bench.alternate(
        {
            "Flower, quickstart": bench.peer("peer_flower_heads.py", path, "--quickstart"),
            "Flower, warm": bench.peer("peer_flower_heads.py", path),
            "pfl": bench.peer("peer_pfl_heads.py", path),
            "fedtl, local": own("--via", "local"),
            "fedtl, stacked": own("--via", "stacked"),
            "fedtl, Poisson": own("--sampling", "poisson"),
            "fedtl, Poisson, DP-SGD": own("--sampling", "poisson", "--private"),
            "fedtl, full": own("--sampling", "full"),
            "fedtl, full, DP-SGD": own("--sampling", "full", "--private"),
        }
    )
    job = f"{sizes.sites} heads, cached features"
    yield from _against_peers(found, job)
    yield from _price_of_privacy(found)


def _against_peers(found: dict[str, list[Figures]], job: str) -> Iterator[Line]:
    gap = abs(middle(found["fedtl, stacked"], "loss") - middle(found["pfl"], "loss"))
    same = (
        "heads: 60 features of 1,280 a site, 10 classes, 3 steps of 20 rows, 10 rounds; the final "
        f"loss differs by {gap:.4f}, because fedtl shuffles its batches; the aims are those "
        "against the quickstart, and a warmed Flower is the harder contender"
    )
    for peer, said, aims in (
        ("Flower, quickstart", "Flower on Ray, as its quickstart", (12, 40)),
        ("Flower, warm", "Flower on Ray, warm, features kept", (12, 40)),
        ("pfl", "pfl, one process", (None, 3)),
    ):
        for via, aim in zip(("local", "stacked"), aims, strict=True):
            if aim is None:
                continue
            own, other = found[f"fedtl, {via}"], found[peer]
            rates = f"{middle(own, RATE):.0f} and {middle(other, RATE):.0f} client-rounds/s"
            yield Line(f"{job}, {via}", said, aim, True, ratios(own, other, RATE), "x", rates, same)


def _price_of_privacy(found: dict[str, list[Figures]]) -> Iterator[Line]:
    for kind in ("Poisson", "full"):
        private, plain = found[f"fedtl, {kind}, DP-SGD"], found[f"fedtl, {kind}"]
        yield Line(
            f"heads, stacked, DP-SGD, {kind} batches",
            "the same batches without privacy",
            1.5,
            False,
            ratios(private, plain, "seconds"),
            "x",
            f"{middle(private, 'seconds'):.3f} and {middle(plain, 'seconds'):.3f} s",
        )


def images(bench: Bench, sizes: Sizes) -> Iterator[Line]:
    """Time a whole job with images, process start included, against stock Flower on Ray."""
    recipe = bench.work / "images.toml"
    recipe.write_text(RECIPE, encoding="utf-8")

    def simulate() -> Figures:
        out = bench.work / f"run-{uuid.uuid4().hex}"
        command = [sys.executable, "-m", "fedtl", "simulate", recipe, "--quiet", "--out", out]
        return bench.timed(command)

    def cold() -> Figures:
        shutil.rmtree(bench.work / "home", ignore_errors=True)
        return simulate()

    def pair() -> Figures:
        first = cold()["wall_seconds"]
        return {"cold_seconds": first, "warm_seconds": simulate()["wall_seconds"]}

    rounds = ("--rounds", sizes.image_rounds)
    found = bench.alternate(
        {
            "Flower, images": bench.peer("peer_flower_images.py", *rounds),
            "fedtl, images": pair,
        }
    )
    flower, own = found["Flower, images"], found["fedtl, images"]
    key = "total_seconds_of_ten_rounds"
    note = (
        "images: Fashion-MNIST at 128 px, 10 iid sites; fedtl also makes the features of 500 "
        f"held-out images; Flower's ten rounds are extrapolated from {sizes.image_rounds}"
    )
    for start, aim in (("cold", 12), ("warm", 60)):
        mine = f"{start}_seconds"
        yield Line(
            f"3,000 images, 10 rounds, {start} start",
            "Flower on Ray, backbone in each round",
            aim,
            True,
            ratios(flower, own, key, mine),
            "x",
            f"{middle(own, mine):.1f} and {middle(flower, key):.0f} s",
            note,
        )


def memory(bench: Bench, sizes: Sizes) -> Iterator[Line]:
    """Measure peak memory on memory-mapped features."""
    path = bench.work / "large.npy"
    bench.own("own_scale.py", "write", path, "--rows", sizes.rows)()
    found = bench.alternate({"fedtl, memory": bench.own("own_scale.py", "memory", path)})
    path.unlink()
    (own,) = found.values()
    yield Line(
        f"peak memory, {sizes.rows:,} x 2,208 features",
        "a fixed limit",
        2,
        False,
        tuple(f["peak_gb"] for f in own),
        "GB",
        f"20 rounds, 10 sites: {middle(own, 'seconds'):.1f} s",
    )


def cohort(bench: Bench, sizes: Sizes) -> Iterator[Line]:
    """Time a round of 20 sites out of ever more."""
    few, some, many = sizes.cohorts
    found = bench.alternate(
        {
            f"fedtl, {sites} sites": bench.own("own_scale.py", "cohort", "--sites", sites)
            for sites in sizes.cohorts
        }
    )
    key = "seconds_per_round"
    first, *_, last = found.values()
    every = " / ".join(f"{1e3 * middle(figures, key):.2f}" for figures in found.values())
    yield Line(
        f"time of a round, 20 of {many:,} sites",
        f"20 of {few:,}",
        1.5,
        False,
        ratios(last, first, key),
        "x",
        f"{every} ms with {few:,} / {some:,} / {many:,} sites",
    )


def secure(bench: Bench, sizes: Sizes) -> Iterator[Line]:
    """Price secure aggregation: what it adds to a round, and how that grows with the sites."""
    for sites, limit in zip(sizes.secure, (1.5, 15.0), strict=True):
        run = ("own_secure.py", "--sites", sites)
        found = bench.alternate(
            {
                f"fedtl, {sites} sites, plain": bench.own(*run),
                f"fedtl, {sites} sites, secure": bench.own(*run, "--secure"),
            }
        )
        plain, hidden = found.values()
        key = "seconds_per_round"
        what, against = f"secure aggregation, {sites} sites", "the same rounds without"
        yield Line(
            f"{what}, seconds added to a round",
            against,
            limit,
            False,
            tuple(h[key] - p[key] for h, p in zip(hidden, plain, strict=True)),
            "s",
            f"{middle(hidden, key):.3f} and {middle(plain, key):.3f} s",
            "secure: a head of 12,810 values, one process plays server and all sites",
        )
        yield Line(
            f"{what}, bytes sent by a site",
            against,
            3,
            False,
            ratios(hidden, plain, "bytes_up"),
            "x",
            f"{middle(hidden, 'bytes_up') / 1e3:.1f} and {middle(plain, 'bytes_up') / 1e3:.1f} kB",
        )


COMPARISONS: dict[str, Callable[[Bench, Sizes], Iterator[Line]]] = {
    "extraction": extraction,
    "heads": heads,
    "images": images,
    "memory": memory,
    "cohort": cohort,
    "secure": secure,
    "strategies": lambda bench, sizes: strategies(bench, sites=sizes.sites, rows=sizes.rows),
    "study": lambda bench, sizes: study(bench, sizes.study),
    "wire": lambda bench, sizes: wire(bench, sizes.wire),
}


def fashion_is_there() -> bool:
    """Say whether the images job can run: it needs Debian's package dataset-fashion-mnist."""
    from peer_backbone import FASHION_MNIST

    return Path(FASHION_MNIST).is_dir()
