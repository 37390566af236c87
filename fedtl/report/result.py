"""What a run found out: one frozen value, ``report.json`` on disk, all that a report shows."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from fedtl.errors import CacheError

GLOBAL_HEAD, PERSONAL_HEADS = "Global head", "Personal heads"


@dataclass(frozen=True, slots=True)
class PersonalResult:
    """Which head a site uses, and how its heads do on its held-out examples.

    Attributes
    ----------
    choice : {"alone", "global", "personal"}
        The one it uses: another than that it trained alone only where held-out examples leave no
        doubt that it is better.
    alone, global_head, used : float
        Accuracies of the head that the site trained alone, of the global one, and of the one it
        uses; for the last, half of the held-out examples choose for the other half.
    global_ahead, personal_ahead : list of float
        Share of held-out units (examples, or groups) by which the head is ahead of the one that was
        trained alone, and a 95 % interval: middle, lower and upper end.
    """

    choice: str
    alone: float
    global_head: float
    used: float
    global_ahead: list[float]
    personal_ahead: list[float]


@dataclass(frozen=True, slots=True)
class SiteResult:
    """One site at the end of a run.

    Attributes
    ----------
    train, test : int or None
        Training and held-out examples; None where a server does not know them.
    labels : list of int or None
        Training examples per class (or groups, where groups are private). Told with noise, or known
        to a simulation, and then None where a private run hides a small number; empty: not told.
    accuracy : float or None
        Of the global head on the site's held-out examples, or of the site's personal one; None
        without an evaluation.
    local_own, local_all : float or None
        Of a head the site trained alone, without privacy: on its own and on everybody's held-out
        examples.
    epsilon, epsilon_held_out : float
        Privacy spent by a training record, and by a held-out record, of this site.
    bytes_down, bytes_up : int
        Bytes of arrays to and from the site.
    failures : dict of str to int
        Failure code to number of rounds.
    personal : PersonalResult or None
        Of a site that has a personal head, where results may be told in clear.
    """

    name: str
    train: int | None
    test: int | None
    labels: list[int | None]
    accuracy: float | None = None
    local_own: float | None = None
    local_all: float | None = None
    epsilon: float = 0.0
    epsilon_held_out: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    personal: PersonalResult | None = None


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One round.

    Attributes
    ----------
    accuracy, loss : float or None
        Over all sites' held-out examples; None where the round was not evaluated.
    site_accuracy, epsilon : dict of str to float
        Per site; epsilon is the privacy spent up to this round.
    failures, unevaluated : dict of str to str
        Site to failure code: of updates, and of evaluations.
    seconds_train, seconds_aggregate, seconds_evaluate : float
        Wall-clock seconds.
    bytes_down, bytes_up : int
        Bytes of arrays to and from all sites in this round.
    """

    round: int
    cohort: list[str]
    accuracy: float | None
    loss: float | None
    site_accuracy: dict[str, float]
    epsilon: dict[str, float]
    failures: dict[str, str]
    unevaluated: dict[str, str]
    seconds_train: float
    seconds_aggregate: float
    seconds_evaluate: float
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True, slots=True)
class Extraction:
    """How features came about.

    Attributes
    ----------
    computed, cached : int
        Images run through the backbone, and images whose features were on disk.
    notes : dict of str to int
        What the transform did to bring images into the backbone's input distribution, and how
        often.
    """

    computed: int
    cached: int
    seconds: float
    engine: str
    notes: dict[str, int]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that is shown of a run.

    Attributes
    ----------
    status : {"finished", "stopped"}
        Whether all rounds were run.
    guarantee : str
        What may be claimed about privacy, in one sentence.
    plan : str
        The privacy plan in words; empty without privacy.
    model : {"site", "distributed"}
        Whether each site's releases are private by themselves, or only their sum.
    metrics : {"clear", "noised", "off"}
        How held-out results left the sites.
    labels : {"clear", "noised"}
        Whether the sites' labels were told with noise, or are what a simulation knows.
    suppress_below : int
        Smaller numbers of units are not shown, unless they carry noise; 0: all are.
    digests : dict of str to str
        Of the recipe, the backbone's weights, the features (backbone, taps and transform), and, in
        a simulation, the data.
    accuracy, accuracy_without_privacy, accuracy_local_own, accuracy_local_all : float or None
        Global head; the same run without privacy; heads that sites trained alone, on their own and
        on everybody's held-out examples (means weighted by held-out examples).
    extraction : Extraction or None
        None where the sites made their features by themselves.
    confusion : list of list of int
        Global head on all held-out examples, noised ones rounded; rows are true classes.
    seconds : dict of str to float
        Phase (``data``, ``features``, ``rounds``, ``comparisons``) to seconds.
    problems : list of str
        What went wrong, in numbers of files: their names stay with the data.
    heads : {"Global head", "Personal heads"}
        Whose accuracies are shown.
    """

    name: str
    version: str
    created: str
    status: str
    strategy: str
    transport: str
    seed: int
    rounds: int
    recipe: str
    digests: dict[str, str]
    backbone: dict[str, Any]
    classes: list[str]
    plan: str
    guarantee: str
    model: str
    metrics: str
    labels: str
    suppress_below: int
    epsilon: float | None
    delta: float | None
    sites: list[SiteResult]
    history: list[RoundResult]
    extraction: Extraction | None
    accuracy: float | None
    accuracy_without_privacy: float | None
    accuracy_local_own: float | None
    accuracy_local_all: float | None
    confusion: list[list[int]]
    seconds: dict[str, float]
    problems: list[str]
    notes: list[str]
    heads: str = GLOBAL_HEAD

    def to_json(self) -> str:
        """Return the result as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, *, place: str = "report.json") -> RunResult:
        """Read a result.

        Raises
        ------
        CacheError
            The text is not a result of this version of fedtl.
        """
        try:
            result = _build(cls, json.loads(text))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CacheError(
                f"'{place}' is not a result that this version of fedtl can read.",
                next_step="Run `fedtl simulate --resume RUN` to write it again.",
            ) from error
        return typing.cast(RunResult, result)


def not_evaluated(result: RunResult) -> str:
    """Say that nothing was measured, and whether that was wanted."""
    return "not evaluated" + (" (privacy.metrics = off)" if result.metrics == "off" else "")


def _build(kind: Any, value: Any) -> Any:
    """Rebuild nested dataclasses from JSON, by their annotations."""
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in fields(kind)})  # type: ignore[operator]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return [_build(args[0], item) for item in value]
    if origin in (typing.Union, types.UnionType) and value is not None:
        return _build(next(a for a in args if a is not type(None)), value)
    return value
