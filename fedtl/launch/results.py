"""What a simulation found out: what its server was told, and what only a simulation knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedtl.data import SiteRows
from fedtl.launch.compare import MAX_LOCAL_SITES, Comparison
from fedtl.launch.federation import Federation
from fedtl.launch.guarantee import guarantee_of, notes_of
from fedtl.launch.history import Entry
from fedtl.launch.labels import Labels
from fedtl.launch.plans import cautions
from fedtl.launch.terms import Terms
from fedtl.launch.told import kept_notes, told_result
from fedtl.modules import Module
from fedtl.privacy.plan import PrivacyPlan
from fedtl.report.result import Extraction, RunResult, SiteResult
from fedtl.report.words import plural
from fedtl.types import Arrays


def result_of(
    federation: Federation,
    entries: Sequence[Entry],
    *,
    plan: PrivacyPlan | None,
    labels: Labels,
    status: str,
    rounds: int,
    kept: int = 0,
    comparison: Comparison,
    seconds: Mapping[str, float],
) -> RunResult:
    """Put together everything that is shown of a simulation."""
    recipe, manifest, features = federation.recipe, federation.manifest, federation.features
    weights = {rows.name: len(rows.test) for rows in federation.rows}
    told = told_result(
        federation.terms,
        entries,
        plan=plan,
        labels=labels,
        status=status,
        rounds=rounds,
        kept=kept,
        seconds=seconds,
        names=federation.names,
    )
    return replace(
        told,
        transport=recipe.transport.via,
        digests={**told.digests, "data": manifest.fingerprint()},
        guarantee=guarantee_of(recipe, plan, comparison),
        sites=[
            _known_site(federation, rows, site, comparison, labels)
            for rows, site in zip(federation.rows, told.sites, strict=True)
        ],
        extraction=Extraction(
            computed=features.computed,
            cached=features.cached,
            seconds=features.seconds,
            engine=features.engine,
            notes=dict(features.notes),
        ),
        accuracy_without_privacy=comparison.without_privacy,
        accuracy_local_own=_mean(comparison.local_own, weights),
        accuracy_local_all=_mean(comparison.local_all, weights),
        problems=_problems(federation),
        notes=[
            *kept_notes(kept, len(entries), rounds),
            *manifest.notes,
            *cautions(recipe, manifest, federation.rows),
            *_notes(federation, labels),
        ],
    )


def _known_site(
    federation: Federation, rows: SiteRows, told: SiteResult, comparison: Comparison, labels: Labels
) -> SiteResult:
    """Add what only a simulation knows of a site."""
    hidden = rows.name in _hidden(federation)
    return replace(
        told,
        train=len(rows.train),
        test=len(rows.test),
        labels=_labels(federation, rows, labels),
        local_own=None if hidden else comparison.local_own.get(rows.name),
        local_all=comparison.local_all.get(rows.name),
    )


def _hidden(federation: Federation) -> set[str]:
    """Return the sites of a private run with too few held-out units to be told of."""
    privacy, groups = federation.recipe.privacy, federation.manifest.groups
    if not privacy.enabled:
        return set()
    by_group = groups is not None and privacy.unit == "group"
    units = {
        rows.name: len({groups[row] for row in rows.test} if by_group and groups else rows.test)
        for rows in federation.rows
    }
    return {name for name, n in units.items() if n < privacy.suppress_below}


def _labels(federation: Federation, rows: SiteRows, told: Labels) -> list[int | None]:
    """Return what is shown of a site's labels: what it told, else what the simulation knows."""
    privacy, manifest = federation.recipe.privacy, federation.manifest
    if privacy.labels == "noised":
        return [max(round(n), 0) for n in told.counts.get(rows.name, [])]
    counts = np.bincount(manifest.labels[rows.train], minlength=len(manifest.classes)).tolist()
    least = privacy.suppress_below if privacy.enabled else 0
    return [n if n >= least else None for n in counts]


def _mean(values: Mapping[str, float], weights: Mapping[str, int]) -> float | None:
    total = sum(weights[name] for name in values)
    return sum(v * weights[n] for n, v in values.items()) / total if total else None


def _problems(federation: Federation) -> list[str]:
    """Return how many files were left out and why; their names stay with the data."""
    reasons = Counter(problem.reason for problem in federation.manifest.problems)
    return [f"{plural(n, 'file')} left out: {reason}" for reason, n in sorted(reasons.items())]


def _notes(federation: Federation, labels: Labels) -> list[str]:
    notes = notes_of(federation.recipe, len(_hidden(federation)), labels)
    if federation.recipe.compare.local_only and len(federation.rows) > MAX_LOCAL_SITES:
        notes.append(f"Local-only heads are not trained for more than {MAX_LOCAL_SITES} sites.")
    if not federation.manifest.test.any():
        notes.append("No row is held out, so nothing could be evaluated.")
    return notes


def module_of(terms: Terms, head: Arrays, result: RunResult) -> Module:
    """Return the finished head with its card and provenance."""
    return Module(
        head=head,
        card=terms.card,
        classes=terms.classes,
        provenance={
            "run": result.name,
            "created": result.created,
            "fedtl": result.version,
            "strategy": result.strategy,
            "plan": result.plan,
            **{f"{name}-digest": digest for name, digest in result.digests.items()},
        },
    )
