"""From a finished (or stopped) run to the value that the report shows: what a server knows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import numpy as np

from fedtl import __version__
from fedtl.launch.guarantee import claim_of, heads_of, notes_of
from fedtl.launch.history import Entry, Tally
from fedtl.launch.labels import Labels
from fedtl.launch.plans import releases_per_round
from fedtl.launch.terms import Terms
from fedtl.privacy.plan import PrivacyPlan
from fedtl.privacy.release import ABOUT_HELD_OUT
from fedtl.report.result import PersonalResult, RoundResult, RunResult, SiteResult
from fedtl.rounds import RoundRecord
from fedtl.train.personal.choice import difference
from fedtl.types import Evaluation


def told_result(
    terms: Terms,
    entries: Sequence[Entry],
    *,
    plan: PrivacyPlan | None,
    labels: Labels,
    status: str,
    rounds: int,
    seconds: Mapping[str, float],
    names: Sequence[str],
    kept: int = 0,
) -> RunResult:
    """Put together what a server is told in a run, by sites whose data it does not know.

    Parameters
    ----------
    kept : int
        The round whose head is the result; 0: the last one.
    names : sequence of str
        Of the sites.
    """
    recipe, card = terms.recipe, terms.card
    epsilon_of = EpsilonOf(plan)
    tally = Tally(releases_per_round(recipe) if plan else {}, labels.spent)
    history = [_round(entry, tally, epsilon_of) for entry in entries]
    last = _shown(entries, kept)
    privacy = recipe.privacy
    return RunResult(
        name=recipe.name,
        version=__version__,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        status=status,
        strategy=recipe.strategy.name,
        transport="superlink",
        seed=recipe.seed,
        rounds=rounds,
        recipe=recipe.to_toml(),
        digests={
            "recipe": recipe.digest(),
            "weights": card.sha256,
            "features": card.digest(),
        },
        backbone=json.loads(card.to_json()),
        classes=list(terms.classes),
        plan=plan.describe() if plan else "",
        guarantee=claim_of(recipe, plan),
        model=plan.model if plan else "site",
        metrics=privacy.metrics,
        labels="noised" if plan and plan.covers("labels") else "clear",
        suppress_below=privacy.suppress_below if plan else 0,
        epsilon=plan.epsilon if plan else None,
        delta=plan.delta if plan else None,
        sites=_sites(names, entries, epsilon_of, tally.counts, labels, last),
        history=history,
        extraction=None,
        accuracy=_number(last.accuracy) if last else None,
        accuracy_without_privacy=None,
        accuracy_local_own=None,
        accuracy_local_all=None,
        confusion=_confusion(last),
        seconds=dict(seconds),
        problems=[],
        notes=[*kept_notes(kept, len(entries), rounds), *notes_of(recipe, 0, labels)],
        heads=heads_of(recipe),
    )


def _shown(entries: Sequence[Entry], kept: int) -> RoundRecord | None:
    """Return the round whose results are the run's: the one that is kept, or the last evaluated."""
    told = [entry.record for entry in entries if entry.record.evaluations]
    return next((r for r in told if r.round == kept), told[-1] if told else None)


def kept_notes(kept: int, done: int, rounds: int) -> list[str]:
    """Say which round's head is the result, where it need not be the last one's."""
    if not kept:
        return []
    stopped = f"; the run stopped early, after {done} of {rounds}" if done < rounds else ""
    return [f"The head is that of round {kept}, whose held-out result was the best{stopped}."]


class EpsilonOf:
    """Epsilon after some releases by mechanism, each combination computed once."""

    def __init__(self, plan: PrivacyPlan | None) -> None:
        self._plan = plan
        self._of = lru_cache(maxsize=None)(self._epsilon)

    def _epsilon(self, counts: tuple[tuple[str, int], ...], held_out: bool) -> float:
        if self._plan is None or not counts:
            return 0.0
        return self._plan.epsilon_after(dict(counts), held_out=held_out)

    def __call__(self, counts: Mapping[str, int], *, held_out: bool = False) -> float:
        """Return what a training record, or a held-out one, has spent."""
        about = {m: n for m, n in counts.items() if (m in ABOUT_HELD_OUT) == held_out}
        return self._of(tuple(sorted(about.items())), held_out)


def _sites(
    names: Sequence[str],
    entries: Sequence[Entry],
    epsilon_of: EpsilonOf,
    releases: Mapping[str, Mapping[str, int]],
    labels: Labels,
    shown: RoundRecord | None,
) -> list[SiteResult]:
    last = shown.evaluations if shown else {}
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
            name=name,
            train=None,
            test=None,
            labels=[max(round(n), 0) for n in labels.counts.get(name, [])],
            accuracy=_number(last[name].accuracy) if name in last else None,
            epsilon=epsilon_of(releases.get(name, {})),
            epsilon_held_out=epsilon_of(releases.get(name, {}), held_out=True),
            bytes_down=down[name],
            bytes_up=up[name],
            failures=dict(failures.get(name, {})),
            personal=_personal(last.get(name)),
        )
        for name in names
    ]


def _personal(result: Evaluation | None) -> PersonalResult | None:
    if result is None or result.personal is None or not result.n:
        return None
    told, n = result.personal, result.n
    return PersonalResult(
        choice=told.choice,
        alone=told.right_alone / n,
        global_head=told.right_global / n,
        used=told.right_used / n,
        global_ahead=list(difference(told.gained_global, told.lost_global, told.units)),
        personal_ahead=list(difference(told.gained_personal, told.lost_personal, told.units)),
    )


def _round(entry: Entry, tally: Tally, spent: EpsilonOf) -> RoundResult:
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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
