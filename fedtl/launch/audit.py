"""An audit of a recipe: its plan and task, on its real features, under three attacks."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from fedtl import __version__
from fedtl.audit.canaries import gradient_canaries
from fedtl.audit.certify import below_gaussian, certify
from fedtl.audit.inversion import Inverted, invert_updates
from fedtl.audit.lira import attack, train_shadows
from fedtl.audit.result import AuditResult, Inversion, Membership, SumsAudit
from fedtl.audit.sums import sums_canaries
from fedtl.errors import RecipeError
from fedtl.launch.federation import Federation, build
from fedtl.launch.progress import Progress, silent
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.plan import PrivacyPlan, Release
from fedtl.recipe import Recipe
from fedtl.rng import stream
from fedtl.train.additive import MECHANISMS
from fedtl.train.fit import Examples
from fedtl.train.task import TrainTask

SIGNIFICANCE = 0.05
MOST_MEMBERS, MOST_INVERTED = 1000, 100
_CURVE_POINTS = 200


def audit(
    recipe: Recipe,
    *,
    canaries: int = 4000,
    shadows: int = 256,
    seed: int = 0,
    progress: Progress = silent,
) -> AuditResult:
    """Attack what a recipe's sites release, and set what is proved beside what is claimed.

    Parameters
    ----------
    canaries : int
        Invented records, planted at the largest site; 100 to 10,000.
    shadows : int
        Shadow heads for membership inference, at least 16.
    seed : int
        Of canaries, coins and noise; other than the recipe's, which cuts data into sites.

    Raises
    ------
    FedtlError
        The recipe trains an MLP, or cannot be run at all.
    """
    if recipe.head.kind != "linear":
        raise RecipeError(
            f"head.kind = '{recipe.head.kind}': audits know the gradients of linear heads only.",
            next_step="Set head.kind = 'linear'; the plan and its noise stay the same.",
        )
    if recipe.privacy.enabled and recipe.privacy.unit != "example":
        raise RecipeError(
            f"privacy.unit = '{recipe.privacy.unit}': audits plant single examples as canaries.",
            next_step="Set privacy.unit = 'example' to audit the noise, which is the same.",
        )
    clock = [time.perf_counter()]
    federation = build(recipe, progress)
    plan, task = federation.plan(), TrainTask.of(recipe)
    at = int(np.argmax([len(rows.train) for rows in federation.rows]))
    site, classes = federation.site(at), len(federation.manifest.classes)
    clock.append(time.perf_counter())
    gradients = plan is None or plan.covers("gradients")
    release = _audited(plan)
    if gradients:
        found = gradient_canaries(
            site.examples[0],
            classes,
            task=task,
            release=release,
            canaries=canaries,
            seed=seed,
            progress=progress,
        )
    else:
        found = sums_canaries(
            site.examples[0], classes, release=release, canaries=canaries, seed=seed
        )
    delta = plan.delta if plan else recipe.privacy.delta
    gaussian = release is None or below_gaussian(release, delta)
    certified = certify(found, delta=delta, gaussian=gaussian, significance=SIGNIFICANCE)
    sums = _sums(site.examples[0], classes, plan, canaries, seed) if plan and gradients else []
    clock.append(time.perf_counter())
    if release is not None and release.honest_sites:
        release = replace(release, honest_sites=0)  # a sum looks like the update of one large site
    membership = (
        _membership(federation, release, shadows=shadows, seed=seed, progress=progress)
        if gradients
        else None
    )
    clock.append(time.perf_counter())
    inversion = _inversion(site.examples[0], classes, release, seed) if gradients else None
    clock.append(time.perf_counter())
    phases = ("features", "canaries", "membership", "inversion")
    return AuditResult(
        name=recipe.name,
        version=__version__,
        plan=plan.describe() if plan else "",
        epsilon=epsilon_of(release.event(), delta) if release else None,
        delta=delta,
        site=site.name,
        mechanism=release.mechanism if release else "gradients",
        canaries=canaries,
        certified=certified,
        significance=SIGNIFICANCE,
        membership=membership,
        inversion=inversion,
        seed=seed,
        seconds=dict(zip(phases, np.diff(clock).tolist(), strict=True)),
        sums=sums,
    )


def _audited(plan: PrivacyPlan | None) -> Release | None:
    """Return the release that is attacked: gradients where the plan covers them."""
    if plan is None:
        return None
    return plan.release("gradients" if plan.covers("gradients") else "statistics")


def _sums(
    real: Examples, classes: int, plan: PrivacyPlan, canaries: int, seed: int
) -> list[SumsAudit]:
    """Look for canaries in every sum that is released beside gradients."""
    found = []
    for release in plan.releases:
        if release.mechanism not in MECHANISMS or release.mechanism == "sums":
            continue  # where a canary shows in a scripted sum, only its author knows
        seen = sums_canaries(
            real,
            classes,
            mechanism=release.mechanism,
            release=release,
            canaries=canaries,
            seed=seed,
        )
        found.append(
            SumsAudit(
                release.mechanism,
                epsilon_of(release.event(), plan.delta),
                certify(seen, delta=plan.delta, significance=SIGNIFICANCE),
            )
        )
    return found


def _membership(
    federation: Federation,
    release: Release | None,
    *,
    shadows: int,
    seed: int,
    progress: Progress,
) -> Membership:
    """Attack heads of the size of a typical site, on examples of all sites."""
    train = [federation.site(at).examples[0] for at in range(len(federation.rows))]
    typical = release.public_size if release else float(np.mean([len(part) for part in train]))
    pool = _some(train, min(round(2 * typical), MOST_MEMBERS), seed)
    made = train_shadows(
        pool,
        len(federation.manifest.classes),
        task=TrainTask.of(federation.recipe),
        release=replace(release, public_size=len(pool) / 2) if release else None,
        shadows=shadows,
        seed=seed,
        progress=progress,
    )
    online = attack(made)
    thin = np.unique(np.linspace(0, len(online.fpr) - 1, _CURVE_POINTS).astype(int))
    low = np.flatnonzero(online.fpr <= 0.01)  # what matters most is at the left
    kept = np.union1d(thin, low[:: max(len(low) // _CURVE_POINTS, 1)])
    return Membership(
        shadows=shadows,
        examples=len(pool),
        auc=online.auc,
        auc_offline=attack(made, online=False).auc,
        tpr_at_01=online.tpr_at_01,
        tpr_at_1=online.tpr_at_1,
        fpr=online.fpr[kept].tolist(),
        tpr=online.tpr[kept].tolist(),
    )


def _some(parts: list[Examples], n: int, seed: int) -> Examples:
    """Draw at most ``n`` of several sites' examples; the features stay mapped until then."""
    ends = np.cumsum([len(part) for part in parts])
    drawn = np.sort(stream(seed, "audit pool").permutation(int(ends[-1]))[:n])
    by_site = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    rows = [
        torch.from_numpy(own - end + len(part))
        for part, end, own in zip(parts, ends, by_site, strict=True)
    ]
    x = [part.x[own] for part, own in zip(parts, rows, strict=True)]
    y = [part.y[own] for part, own in zip(parts, rows, strict=True)]
    return Examples.of(torch.cat(x), torch.cat(y))


def _inversion(real: Examples, classes: int, release: Release | None, seed: int) -> Inversion:
    few = Examples.of(real.x[:MOST_INVERTED], real.y[:MOST_INVERTED])
    raw = invert_updates(few, classes, release=None, seed=seed)
    released = invert_updates(few, classes, release=release, seed=seed) if release else raw
    return Inversion(
        examples=len(few),
        raw_error=_median(raw),
        raw_found=raw.found,
        raw_labels=raw.labels_right,
        released_error=_median(released),
        released_found=released.found,
        released_labels=released.labels_right,
    )


def _median(inverted: Inverted) -> float | None:
    middle = float(np.median(inverted.errors))
    return middle if np.isfinite(middle) else None
