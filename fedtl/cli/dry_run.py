"""What a run will cost, found out without running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fedtl.cli.ahead import check_names
from fedtl.cli.screen import print_json

if TYPE_CHECKING:
    from fedtl.data import SiteRows
    from fedtl.recipe import Recipe

PROCESS_BYTES = 600_000_000
"""Resident memory of a run on the embedded digits, nearly all of it torch and Flower."""
FLOPS_PER_SECOND = 1e10
"""Of head training on two cores; a rough figure."""
SECONDS_PER_MESSAGE = 1e-3
"""Of one message to a site and back in this process; a rough figure."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run needs.

    Attributes
    ----------
    sites, examples : int
        Sites, and training and held-out examples of all of them.
    images_cached, images_to_extract : int
        Different images whose features are in the cache, and whose are not.
    seconds_features, seconds_rounds : float
        Estimates; the first is measured on a few images, the second is a rough figure.
    bytes_memory, bytes_disk : int
        Estimates: peak resident memory, and new features in the cache.
    epsilon_per_site : float or None
        Privacy of a site that takes part in every round; None without privacy.
    releases : dict of str to str
        What such a site releases, by mechanism, in words.
    costs : dict of str to float
        The epsilon that each of them would cost by itself.
    bytes_down, bytes_up : int
        Arrays to and from a site in a round in which it trains and is evaluated.
    bytes_up_once : int
        Arrays of sums from a site that the strategy asks for before it trains.
    """

    sites: int
    examples: int
    images_cached: int
    images_to_extract: int
    seconds_features: float
    seconds_rounds: float
    bytes_memory: int
    bytes_disk: int
    epsilon_per_site: float | None
    releases: dict[str, str]
    costs: dict[str, float]
    bytes_down: int
    bytes_up: int
    bytes_up_once: int


def show(recipe: Recipe, *, as_json: bool) -> None:
    """Print a recipe and what it will cost; as text it is TOML with the cost in comments."""
    cost = estimate(recipe)
    if as_json:
        print_json({"recipe": recipe.model_dump(), "cost": asdict(cost)})
        return
    print(recipe.to_toml())
    print("\n".join(f"# {line}" for line in _lines(cost)))


def estimate(recipe: Recipe) -> Cost:
    """Work out the cost of a run; opens data and backbone, but extracts and writes no features.

    Raises
    ------
    FedtlError
        The run could not begin either.
    """
    from fedtl.features.estimate import seconds_needed, still_missing
    from fedtl.launch.federation import open_and_cut
    from fedtl.launch.opening import card_of
    from fedtl.launch.plans import mean_units, plan_of

    check_names(recipe)
    body = recipe.backbone
    manifest, rows = open_and_cut(recipe)
    card = card_of(body)
    plan = plan_of(recipe, mean_size=mean_units(recipe, manifest, rows), sites=len(rows))
    missing, cached = still_missing(manifest, card, precision=body.precision)
    n, width = len(manifest.labels), card.width + 1
    down, up, once = _traffic(recipe, width, len(manifest.classes))
    return Cost(
        sites=len(rows),
        examples=n,
        images_cached=cached,
        images_to_extract=len(missing),
        seconds_features=seconds_needed(
            manifest, card, missing, engine=body.engine, precision=body.precision
        ),
        seconds_rounds=_round_seconds(recipe, rows, width * len(manifest.classes)),
        bytes_memory=PROCESS_BYTES + 4 * n * width,
        bytes_disk=4 * len(missing) * card.width + 4 * n * width,
        epsilon_per_site=plan.epsilon_after() if plan else None,
        releases={r.mechanism: r.describe() for r in plan.releases} if plan else {},
        costs=plan.costs() if plan else {},
        bytes_down=down,
        bytes_up=up,
        bytes_up_once=once,
    )


def _round_seconds(recipe: Recipe, rows: tuple[SiteRows, ...], weights: int) -> float:
    """Return a rough figure for all rounds, from the multiplications of a linear head."""
    train = recipe.train
    share = min(1.0, (train.sites_per_round or len(rows)) / len(rows))
    n_train, n_test = sum(len(site.train) for site in rows), sum(len(site.test) for site in rows)
    per_step = n_train if train.sampling == "full" else train.batch_size * len(rows)
    flops = weights * (4 * train.local_steps * per_step * share + 2 * n_test)
    messages = len(rows) * (1 + share)
    return train.rounds * (flops / FLOPS_PER_SECOND + messages * SECONDS_PER_MESSAGE)


def _traffic(recipe: Recipe, width: int, classes: int) -> tuple[int, int, int]:
    """Return bytes of arrays to and from one site in a round, and once from it in sums."""
    from math import prod

    from fedtl.strategies import strategy_of
    from fedtl.strategies.declared import Declared
    from fedtl.train.additive import MECHANISMS, shapes
    from fedtl.train.heads import features_of, initial_head, trained_part

    says = Declared.of(strategy_of(recipe))
    head = initial_head(
        recipe.head.kind,
        width,
        classes,
        hidden=recipe.head.hidden,
        directions=says.directions,
        feature_map=says.feature_map,
    )
    down = sum(values.nbytes for values in head.values())
    up = sum(values.nbytes for values in trained_part(head).values())
    asked = [name for name in says.mechanisms if name in MECHANISMS]
    width = features_of(head, width)
    size = says.sums_size(width, classes)
    told = [s for name in asked for s in shapes(name, width, classes, size=size).values()]
    sums = sum(8 * prod(shape) for shape in told)
    if not says.gradients:
        return down + 8 * says.beside_sums(width, classes), sums, 0
    evaluated = recipe.evaluate_every and recipe.privacy.metrics != "off"
    secure = 2 if recipe.transport.secure else 1  # masked words have 64 bits
    return down * (2 if evaluated else 1), up * secure, sums


def _lines(cost: Cost) -> list[str]:
    from fedtl.report.words import count, duration, privacy, size

    measured = f"about {duration(cost.seconds_features)}, measured on a few"
    private = "none"
    if cost.epsilon_per_site is not None:
        alone = len(cost.costs) > 1
        parts = "; ".join(
            said + (f" (alone epsilon {privacy(cost.costs[name])})" if alone else "")
            for name, said in cost.releases.items()
        )
        private = f"epsilon {privacy(cost.epsilon_per_site)} over the whole run: {parts}"
    facts: dict[str, Any] = {
        "Sites": f"{count(cost.sites)}, {count(cost.examples)} examples",
        "Features": f"{count(cost.images_to_extract)} images to extract"
        + (f" ({measured})" if cost.images_to_extract else "")
        + f", {count(cost.images_cached)} cached",
        "Rounds": f"about {duration(cost.seconds_rounds)} (a rough estimate)",
        "Memory": f"about {size(cost.bytes_memory)} (an estimate)",
        "Disk": f"at most {size(cost.bytes_disk)} in the feature cache",
        "Privacy": private,
        "Traffic": f"{size(cost.bytes_down)} to and {size(cost.bytes_up)} from a site per round"
        + (f", and once {size(cost.bytes_up_once)} of sums" if cost.bytes_up_once else ""),
    }
    return [f"{name + ':':<10}{fact}" for name, fact in facts.items()]
