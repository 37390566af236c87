"""Sites without pictures: seeded Gaussian classes, for every test above the data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import Context

from fedtl.errors import DataError
from fedtl.privacy.ledger import DataSet
from fedtl.privacy.plan import PrivacyPlan, Release
from fedtl.site.site import Site
from fedtl.train.fit import Examples

CLASSES = ("left", "middle", "right")
WIDTH = 6
SIZE = 40.0
CANARY = "canary-4711"
NAMES = tuple(f"site-{letter}" for letter in "abcdef")


def toy_examples(
    n: int, seed: int, *, width: int = WIDTH, classes: int = len(CLASSES), spread: float = 0.6
) -> Examples:
    """Return ``n`` examples around class centres that are the same for every seed."""
    rng = np.random.default_rng([7, seed])
    centres = np.random.default_rng(1).normal(size=(classes, width - 1))
    y = rng.integers(0, classes, n)
    x = centres[y] + spread * rng.normal(size=(n, width - 1))
    x = np.concatenate([x, np.full((n, 1), 0.5)], axis=1).astype(np.float32)
    return Examples.of(torch.from_numpy(x), torch.from_numpy(y))


@dataclass
class Toys:
    """``site_of`` for toy sites; a value that travels to other processes.

    ``faults`` says what goes wrong where: unreadable, broken, nan, unbuilt or slow.
    """

    names: tuple[str, ...] = NAMES
    faults: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = True
    spent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)

    def __call__(self, context: Context) -> Site:
        return self.site(self.names[int(context.node_config["partition-id"])])

    def site(self, name: str) -> Site:
        if self.faults.get(name) == "unbuilt":
            raise RuntimeError(f"{CANARY} in /secret/{name}")
        if name not in self.sites:
            self.sites[name] = Site(
                name=name,
                classes=CLASSES,
                width=WIDTH,
                backbone="toy",
                load=lambda: self._load(name),
                spent_before=self.spent.get(name, {}),
                simulated=self.simulated,
            )
        return self.sites[name]

    def _load(self, name: str) -> tuple[Examples, Examples]:
        at, fault = self.names.index(name), self.faults.get(name)
        if fault == "unreadable":
            raise DataError(f"/secret/{CANARY}.png is unreadable.", code="data.unreadable")
        if fault == "broken":
            raise RuntimeError(f"{CANARY} at row 3 of /secret/labels.csv")
        if fault == "slow":
            time.sleep(1.5)
        train, held_out = toy_examples(20 + 7 * at, at), toy_examples(15, 100 + at)
        if fault == "nan":
            train.x[3, 1] = float("nan")
            train = Examples.of(train.x, train.y)
        return train, held_out

    def __reduce__(self) -> tuple[type[Toys], tuple[object, ...]]:
        return Toys, (self.names, dict(self.faults), self.simulated, dict(self.spent))


def toy_release(count: int = 1000, *, poisson: bool = False, **changes: object) -> Release:
    """Return a release whose noise is visible but leaves something to learn."""
    values: dict[str, object] = {
        "mechanism": "gradients",
        "clip_norm": 0.7,
        "noise_multiplier": 2.0,
        "count": count,
        "sampling_rate": 0.4 if poisson else 1.0,
        "public_size": SIZE,
    }
    return Release(**(values | changes))  # type: ignore[arg-type]


def toy_plan(count: int = 1000, *, poisson: bool = False, **changes: object) -> PrivacyPlan:
    """Return a plan of one toy release."""
    return PrivacyPlan(1e4, 1e-5, (toy_release(count, poisson=poisson, **changes),))


def toy_records(seed: int, n: int = 20) -> DataSet:
    """Return ``n`` records as a ledger knows them."""
    return DataSet.of(np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8))
