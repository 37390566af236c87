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
from fedtl.launch.compare import MAX_LOCAL_SITES, Comparison
from fedtl.launch.federation import Federation
from fedtl.launch.history import Entry, Tally
from fedtl.launch.plans import cautions, releases_per_round
from fedtl.modules import Module
from fedtl.privacy.plan import PrivacyPlan
from fedtl.report.result import Extraction, RoundResult, RunResult, SiteResult
from fedtl.types import Arrays

_SIMULATED = (
    "No guarantee: this is a simulation, its noise comes from the run's seed. Deployed sites "
    "draw their noise from the operating system; the epsilon shown is what the same recipe would "
    "spend there. Held-out accuracies are shown without noise."
)
_NOT_PRIVATE = "No privacy: the updates of this run were neither clipped nor noised."


def result_of(
    federation: Federation,
    entries: Sequence[Entry],
    *,
    plan: PrivacyPlan | None,
    status: str,
    rounds: int,
    comparison: Comparison,
    seconds: Mapping[str, float],
) -> RunResult:
    """Put together everything that is shown of a run."""
    recipe, manifest, card = federation.recipe, federation.manifest, federation.card
    spent = _Spent(plan)
    tally = Tally(releases_per_round(recipe) if plan else {})
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
        guarantee=_SIMULATED if plan else _NOT_PRIVATE,
        epsilon=plan.epsilon if plan else None,
        delta=plan.delta if plan else None,
        sites=_sites(federation, entries, comparison, spent, tally.counts),
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
        confusion=_confusion(last.evaluations if last else {}),
        seconds=dict(seconds),
        problems=[f"{p.path}: {p.reason}" for p in manifest.problems],
        notes=[
            *manifest.notes,
            *cautions(recipe, manifest, federation.rows),
            *_notes(federation),
        ],
    )


class _Spent:
    """Epsilon after some releases by mechanism, each combination computed once."""

    def __init__(self, plan: PrivacyPlan | None) -> None:
        self._plan = plan
        self._of = lru_cache(maxsize=None)(self._epsilon)

    def _epsilon(self, counts: tuple[tuple[str, int], ...]) -> float:
        return self._plan.epsilon_after(dict(counts)) if self._plan and counts else 0.0

    def __call__(self, counts: Mapping[str, int]) -> float:
        return self._of(tuple(sorted(counts.items())))


def _sites(
    federation: Federation,
    entries: Sequence[Entry],
    comparison: Comparison,
    spent: _Spent,
    releases: Mapping[str, Mapping[str, int]],
) -> list[SiteResult]:
    labels, classes = federation.manifest.labels, len(federation.manifest.classes)
    last = next((e.record.evaluations for e in reversed(entries) if e.record.evaluations), {})
    down: Counter[str] = Counter()
    up: Counter[str] = Counter()
    failures: dict[str, Counter[str]] = {}
    for entry in entries:
        down.update(entry.down)
        up.update(entry.up)
        for site, code in entry.record.failures.items():
            failures.setdefault(site, Counter())[code] += 1
    return [
        SiteResult(
            name=rows.name,
            train=len(rows.train),
            test=len(rows.test),
            labels=np.bincount(labels[rows.train], minlength=classes).tolist(),
            accuracy=_number(last[rows.name].accuracy) if rows.name in last else None,
            local_own=comparison.local_own.get(rows.name),
            local_all=comparison.local_all.get(rows.name),
            epsilon=spent(releases.get(rows.name, {})),
            bytes_down=down[rows.name],
            bytes_up=up[rows.name],
            failures=dict(failures.get(rows.name, {})),
        )
        for rows in federation.rows
    ]


def _round(entry: Entry, tally: Tally, spent: _Spent) -> RoundResult:
    """Return what is shown of a round; its releases join those of the rounds before."""
    record = entry.record
    tally.add(record)
    return RoundResult(
        round=record.round,
        cohort=list(record.cohort),
        accuracy=_number(record.accuracy),
        loss=_number(record.loss),
        site_accuracy={n: e.accuracy for n, e in record.evaluations.items() if e.n},
        epsilon={name: spent(tally.counts.get(name, {})) for name in record.releases},
        failures=dict(record.failures),
        seconds_train=record.seconds_train,
        seconds_aggregate=record.seconds_aggregate,
        seconds_evaluate=record.seconds_evaluate,
        bytes_down=sum(entry.down.values()),
        bytes_up=sum(entry.up.values()),
    )


def _confusion(evaluations: Mapping[str, Any]) -> list[list[int]]:
    total = sum((e.confusion for e in evaluations.values()), np.zeros((1, 1), np.int64))
    return total.tolist() if evaluations else []


def _mean(values: Mapping[str, float], weights: Mapping[str, int]) -> float | None:
    total = sum(weights[name] for name in values)
    return sum(v * weights[n] for n, v in values.items()) / total if total else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _card(federation: Federation) -> dict[str, Any]:
    import json

    card: dict[str, Any] = json.loads(federation.card.to_json())
    return card


def _notes(federation: Federation) -> list[str]:
    notes = []
    if federation.recipe.compare.local_only and len(federation.rows) > MAX_LOCAL_SITES:
        notes.append(f"Local-only heads are not trained for more than {MAX_LOCAL_SITES} sites.")
    if not federation.manifest.test.any():
        notes.append("No row is held out, so nothing could be evaluated.")
    return notes


def module_of(federation: Federation, head: Arrays, result: RunResult) -> Module:
    """Return the finished head with its card and provenance."""
    return Module(
        head=head,
        card=federation.card,
        classes=federation.manifest.classes,
        provenance={
            "run": result.name,
            "created": result.created,
            "fedtl": result.version,
            "strategy": result.strategy,
            "plan": result.plan,
            **{f"{name}-digest": digest for name, digest in result.digests.items()},
        },
    )
