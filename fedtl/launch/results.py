"""From a finished (or stopped) run to the value that the report shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from fedtl import __version__
from fedtl.data import SiteRows
from fedtl.launch.compare import MAX_LOCAL_SITES, Comparison
from fedtl.launch.federation import Federation
from fedtl.launch.guarantee import guarantee_of, notes_of
from fedtl.launch.history import Entry, Tally
from fedtl.launch.labels import Labels
from fedtl.launch.plans import cautions, releases_per_round
from fedtl.launch.terms import Terms
from fedtl.modules import Module
from fedtl.privacy.plan import PrivacyPlan
from fedtl.privacy.release import ABOUT_HELD_OUT
from fedtl.report.result import Extraction, RoundResult, RunResult, SiteResult
from fedtl.report.words import plural
from fedtl.rounds import RoundRecord
from fedtl.types import Arrays


def result_of(
    federation: Federation,
    entries: Sequence[Entry],
    *,
    plan: PrivacyPlan | None,
    labels: Labels,
    status: str,
    rounds: int,
    comparison: Comparison,
    seconds: Mapping[str, float],
) -> RunResult:
    """Put together everything that is shown of a run."""
    recipe, manifest, card = federation.recipe, federation.manifest, federation.card
    spent = _Spent(plan)
    tally = Tally(releases_per_round(recipe) if plan else {}, labels.spent)
    history = [_round(entry, tally, spent) for entry in entries]
    last = next((e.record for e in reversed(entries) if e.record.evaluations), None)
    own_weights = {r.name: len(r.test) for r in federation.rows}
    return RunResult(
        name=recipe.name,
        version=__version__,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        status=status,
        strategy=recipe.strategy.name,
        transport=recipe.transport.via,
        seed=recipe.seed,
        rounds=rounds,
        recipe=recipe.to_toml(),
        digests={
            "recipe": recipe.digest(),
            "weights": card.sha256,
            "features": card.digest(),
            "data": manifest.fingerprint(),
        },
        backbone=_card(federation),
        classes=list(manifest.classes),
        plan=plan.describe() if plan else "",
        guarantee=guarantee_of(recipe, plan, comparison),
        model=plan.model if plan else "site",
        metrics=recipe.privacy.metrics,
        labels="noised" if plan and plan.covers("labels") else "clear",
        suppress_below=recipe.privacy.suppress_below if plan else 0,
        epsilon=plan.epsilon if plan else None,
        delta=plan.delta if plan else None,
        sites=_sites(federation, entries, comparison, spent, tally.counts, labels),
        history=history,
        extraction=Extraction(
            computed=federation.features.computed,
            cached=federation.features.cached,
            seconds=federation.features.seconds,
            engine=federation.features.engine,
            notes=dict(federation.features.notes),
        ),
        accuracy=_number(last.accuracy) if last else None,
        accuracy_without_privacy=comparison.without_privacy,
        accuracy_local_own=_mean(comparison.local_own, own_weights),
        accuracy_local_all=_mean(comparison.local_all, own_weights),
        confusion=_confusion(last),
        seconds=dict(seconds),
        problems=_problems(federation),
        notes=[
            *manifest.notes,
            *cautions(recipe, manifest, federation.rows),
            *_notes(federation, labels),
        ],
    )


class _Spent:
    """Epsilon after some releases by mechanism, each combination computed once."""

    def __init__(self, plan: PrivacyPlan | None) -> None:
        self._plan = plan
        self._of = lru_cache(maxsize=None)(self._epsilon)

    def _epsilon(self, counts: tuple[tuple[str, int], ...], held_out: bool) -> float:
        if self._plan is None or not counts:
            return 0.0
        return self._plan.epsilon_after(dict(counts), held_out=held_out)

    def __call__(self, counts: Mapping[str, int], *, held_out: bool = False) -> float:
        about = {m: n for m, n in counts.items() if (m in ABOUT_HELD_OUT) == held_out}
        return self._of(tuple(sorted(about.items())), held_out)


def _sites(
    federation: Federation,
    entries: Sequence[Entry],
    comparison: Comparison,
    spent: _Spent,
    releases: Mapping[str, Mapping[str, int]],
    labels: Labels,
) -> list[SiteResult]:
    last = next((e.record.evaluations for e in reversed(entries) if e.record.evaluations), {})
    down: Counter[str] = Counter()
    up: Counter[str] = Counter()
    failures: dict[str, Counter[str]] = {}
    for entry in entries:
        down.update(entry.down)
        up.update(entry.up)
        for site, code in entry.record.failures.items():
            failures.setdefault(site, Counter())[code] += 1
    hidden = _hidden(federation)
    return [
        SiteResult(
            name=rows.name,
            train=len(rows.train),
            test=len(rows.test),
            labels=_labels(federation, rows, labels),
            accuracy=_number(last[rows.name].accuracy) if rows.name in last else None,
            local_own=None if rows.name in hidden else comparison.local_own.get(rows.name),
            local_all=comparison.local_all.get(rows.name),
            epsilon=spent(releases.get(rows.name, {})),
            epsilon_held_out=spent(releases.get(rows.name, {}), held_out=True),
            bytes_down=down[rows.name],
            bytes_up=up[rows.name],
            failures=dict(failures.get(rows.name, {})),
        )
        for rows in federation.rows
    ]


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


def _round(entry: Entry, tally: Tally, spent: _Spent) -> RoundResult:
    """Return what is shown of a round; its releases join those of the rounds before."""
    record = entry.record
    tally.add(record)
    return RoundResult(
        round=record.round,
        cohort=list(record.cohort),
        accuracy=_number(record.accuracy),
        loss=_number(record.loss),
        site_accuracy={
            n: e.accuracy for n, e in record.evaluations.items() if not math.isnan(e.accuracy)
        },
        epsilon={name: spent(tally.counts.get(name, {})) for name in record.releases},
        failures=dict(record.failures),
        unevaluated=dict(record.unevaluated),
        seconds_train=record.seconds_train,
        seconds_aggregate=record.seconds_aggregate,
        seconds_evaluate=record.seconds_evaluate,
        bytes_down=sum(entry.down.values()),
        bytes_up=sum(entry.up.values()),
    )


def _confusion(last: RoundRecord | None) -> list[list[int]]:
    """Return the confusion over all sites; of noised counts, whole numbers from 0."""
    cells = last.pooled.confusion if last else None
    if cells is None:
        return []
    whole: list[list[int]] = np.rint(cells).clip(min=0).astype(np.int64).tolist()
    return whole


def _mean(values: Mapping[str, float], weights: Mapping[str, int]) -> float | None:
    total = sum(weights[name] for name in values)
    return sum(v * weights[n] for n, v in values.items()) / total if total else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _card(federation: Federation) -> dict[str, Any]:
    import json

    card: dict[str, Any] = json.loads(federation.card.to_json())
    return card


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
