"""What strategies cost: client-side steps beside FedAvg, and closed forms beside their product."""

from __future__ import annotations

from collections.abc import Iterator

import peer_heads
from measure import Bench, Line, middle, ratios

ROUNDS, SAMPLED = 100, 10
CORRECTED = ("fedprox", "scaffold", "feddyn")


def strategies(bench: Bench, *, sites: int, rows: int) -> Iterator[Line]:
    """Compare rounds of strategies whose sites do more than FedAvg's, and FED3R with a product.

    Parameters
    ----------
    sites, rows : int
        Of the federation, and rows of features of all sites together for FED3R.
    """
    run = ("own_strategies.py", "drift")
    found = bench.alternate(
        {
            f"fedtl, {name}": bench.own(*run, name, "--sites", sites)
            for name in ("fedavg", *CORRECTED)
        }
    )
    key, plain = "seconds_per_round", found["fedtl, fedavg"]
    for name in CORRECTED:
        own = found[f"fedtl, {name}"]
        yield Line(
            f"a round of {name}, stacked",
            "a round of fedavg, stacked",
            1.3,
            False,
            ratios(own, plain, key),
            "x",
            f"{middle(own, key):.3f} and {middle(plain, key):.3f} s",
            f"strategies: {sites} sites with 60 features of 1,280, 10 full-batch steps a round",
        )
    yield from _many(bench, sites=10 * sites)
    size = ("--sites", sites, "--rows", rows)
    (own,) = bench.alternate(
        {"fedtl, fed3r": bench.own("own_strategies.py", "statistics", *size)}
    ).values()
    yield Line(
        f"fed3r, {rows:,} x 1,280 over {sites} sites",
        "one pooled Gram product, float64",
        1.5,
        False,
        ratios(own, own, "seconds", "product_seconds"),
        "x",
        f"{middle(own, 'seconds'):.2f} and {middle(own, 'product_seconds'):.2f} s",
        "fed3r: messages, sums, solve and all; the product is numpy's, in the same process",
    )


def _many(bench: Bench, *, sites: int) -> Iterator[Line]:
    """Sample 10 of many sites in each of 100 rounds, as FLUTE's LR_MNIST does."""
    path = bench.work / "many.npz"
    peer_heads.write_features(path, sites=sites, dim=784)
    job = (path, "--rounds", ROUNDS, "--sampled", SAMPLED)
    found = bench.alternate(
        {
            "Flower, many sites": bench.peer("peer_flower_heads.py", *job),
            "fedtl, many sites": bench.own("own_heads.py", *job),
        }
    )
    flower, own = found.values()
    yield Line(
        f"{sites:,} sites, {SAMPLED} a round, {ROUNDS} rounds",
        "Flower on Ray, warm, features kept",
        100,
        True,
        ratios(flower, own, "seconds"),
        "x",
        f"{middle(own, 'seconds'):.2f} and {middle(flower, 'seconds'):.1f} s",
        "many sites: 60 examples of 784 numbers each, 3 steps of 20; Ray's start and the reading "
        "of the data are not counted; FLUTE reports 30:14 min for Flower 1.0 and 3:20 for itself",
    )


def study(bench: Bench, size: tuple[int, int, int, int]) -> Iterator[Line]:
    """Time a whole study with warm features, as a user runs it, on all cores of this machine.

    Parameters
    ----------
    size : tuple of int
        Sites, rows of each, rounds and seeds.
    """
    folder, options = bench.work / "study", ("--sites", "--rows", "--rounds", "--seeds")
    counts = [word for pair in zip(options, size, strict=True) for word in pair]
    bench.own("own_study.py", "write", folder, *counts)()
    (found,) = bench.alternate({"fedtl, study": bench.own("own_study.py", "run", folder)}).values()
    sites, rows, rounds, seeds = size
    slowest = max(found[0]["seconds_of_rounds"].items(), key=lambda item: item[1])
    yield Line(
        f"a study of 5 strategies x {seeds} seeds x {rounds} rounds",
        "a fixed limit",
        180,
        False,
        tuple(f["seconds"] for f in found),
        "s",
        f"{sites} sites x {rows} features of 1,280; longest rounds of a cell: {slowest[0]}, "
        f"{slowest[1]:.1f} s",
        "study: processes, data, tests, table and figures included; aim on two cores",
    )
