"""What was released, apart from what it costs: frozen events, after dp-accounting's ``DpEvent``.

An event says nothing about epsilon; :mod:`fedtl.privacy.accountant` does. Neighbouring data sets
differ by one unit added or removed, and noise is in units of the release's L2 sensitivity.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from fedtl.errors import PrivacyError, nearest

MAX_COUNT = 10**9
MAX_NESTING = 16
MAX_JSON_CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True)
class GaussianEvent:
    """``count`` releases with Gaussian noise, each computed from all of the data.

    Attributes
    ----------
    noise_multiplier : float
        Noise standard deviation divided by the L2 sensitivity; 0 means no noise.
    count : int
        Number of releases, 0 to 10⁹.

    Examples
    --------
    >>> GaussianEvent(2.0, 3)
    GaussianEvent(noise_multiplier=2.0, count=3)
    """

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        _check_count(self.count)


@dataclass(frozen=True, slots=True)
class PoissonGaussianEvent:
    """``count`` Gaussian releases, each from units that took part independently at random.

    Attributes
    ----------
    noise_multiplier : float
        Noise standard deviation divided by the L2 sensitivity; 0 means no noise.
    sampling_rate : float
        Probability in (0, 1] that a unit takes part in a release; 1 is a full batch.
    count : int
        Number of releases, 0 to 10⁹.
    """

    noise_multiplier: float
    sampling_rate: float
    count: int = 1

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        _check_count(self.count)
        if not (_is_number(self.sampling_rate) and 0 < self.sampling_rate <= 1):
            raise PrivacyError(
                f"sampling_rate = {self.sampling_rate!r} of a release is not in (0, 1].",
                next_step="Give the probability with which one unit takes part in one release.",
            )


@dataclass(frozen=True, slots=True)
class ComposedEvent:
    """Several events on the same data, in any order.

    Attributes
    ----------
    events : tuple of Event
        The events; an empty tuple means that nothing was released.
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.events, tuple):
            raise PrivacyError(
                f"events of a ComposedEvent is a {type(self.events).__name__}, not a tuple.",
                next_step="Pass tuple(events).",
            )


Event: TypeAlias = GaussianEvent | PoissonGaussianEvent | ComposedEvent

KINDS: dict[str, type[GaussianEvent] | type[PoissonGaussianEvent] | type[ComposedEvent]] = {
    "gaussian": GaussianEvent,
    "poisson-gaussian": PoissonGaussianEvent,
    "composed": ComposedEvent,
}


@dataclass(frozen=True, order=True, slots=True)
class Releases:
    """All releases of one kind: the form that accountants read (full batch: rate 1)."""

    sampling_rate: float
    noise_multiplier: float
    count: int


def releases_of(event: Event) -> tuple[Releases, ...]:
    """Flatten an event, merge releases of the same kind and sort them, so that order cannot matter.

    Parameters
    ----------
    event : Event
        Any event. Events with ``count`` 0 leave nothing behind.

    Raises
    ------
    PrivacyError
        Something in it is not an event known here, or it is nested too deeply.

    Examples
    --------
    >>> releases_of(ComposedEvent((GaussianEvent(2.0, 1), PoissonGaussianEvent(2.0, 1.0, 2))))
    (Releases(sampling_rate=1.0, noise_multiplier=2.0, count=3),)
    """
    counts: dict[tuple[float, float], int] = {}
    for leaf in _leaves(event, MAX_NESTING):
        rate = leaf.sampling_rate if isinstance(leaf, PoissonGaussianEvent) else 1.0
        key = (float(rate), float(leaf.noise_multiplier))
        counts[key] = counts.get(key, 0) + leaf.count
    return tuple(sorted(Releases(q, s, n) for (q, s), n in counts.items() if n))


def to_json(event: Event) -> str:
    """Return an event as canonical JSON: equal events give equal text.

    Examples
    --------
    >>> to_json(GaussianEvent(2.0, 3))
    '{"count":3,"kind":"gaussian","noise_multiplier":2.0}'
    """
    return json.dumps(_plain(event, MAX_NESTING), sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Event:
    """Read an event from :func:`to_json`; anything that is not exactly an event is refused.

    Raises
    ------
    PrivacyError
        The text is too long, not JSON, or describes no known event with values in range.

    Examples
    --------
    >>> from_json('{"kind": "gaussian", "noise_multiplier": 2.0, "count": 3}')
    GaussianEvent(noise_multiplier=2.0, count=3)
    """
    if len(text) > MAX_JSON_CHARACTERS:
        raise _unreadable(f"it has {len(text)} characters, over {MAX_JSON_CHARACTERS}")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable("it is not JSON") from error
    return _event(raw, MAX_NESTING)


def _event(raw: Any, depth: int) -> Event:
    if not (isinstance(raw, dict) and isinstance(raw.get("kind"), str)):
        raise _unreadable("an event without a kind")
    fields = dict(raw)
    kind = fields.pop("kind")
    if kind not in KINDS:
        raise _unreadable(f"the kind {kind[:40]!r} is unknown", nearest(kind[:40], KINDS))
    if kind == "composed":
        if depth == 0 or not isinstance(fields.get("events"), list):
            raise _unreadable("a composition without a list of events, or nested too deeply")
        fields["events"] = tuple(_event(inner, depth - 1) for inner in fields["events"])
    try:
        return KINDS[kind](**fields)
    except TypeError as error:
        raise _unreadable(f"the fields of {kind!r} are wrong") from error


def _plain(event: Event, depth: int) -> dict[str, Any]:
    if isinstance(event, ComposedEvent) and depth > 0:
        return {"kind": "composed", "events": [_plain(e, depth - 1) for e in event.events]}
    if isinstance(event, GaussianEvent):
        return _fields("gaussian", event)
    if isinstance(event, PoissonGaussianEvent):
        return _fields("poisson-gaussian", event) | {"sampling_rate": float(event.sampling_rate)}
    raise _unknown(event)


def _fields(kind: str, event: GaussianEvent | PoissonGaussianEvent) -> dict[str, Any]:
    noise = float(event.noise_multiplier)
    return {"kind": kind, "noise_multiplier": noise, "count": event.count}


def _leaves(event: Event, depth: int) -> list[GaussianEvent | PoissonGaussianEvent]:
    if isinstance(event, GaussianEvent | PoissonGaussianEvent):
        return [event]
    if isinstance(event, ComposedEvent) and depth > 0:
        return [leaf for inner in event.events for leaf in _leaves(inner, depth - 1)]
    raise _unknown(event)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_noise(noise: float) -> None:
    if not (_is_number(noise) and 0 <= noise <= 1e9):
        raise PrivacyError(
            f"noise_multiplier = {noise!r} of a release is not a number from 0 to 1e9.",
            next_step="Give the noise standard deviation divided by the sensitivity.",
        )


def _check_count(count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_COUNT:
        raise PrivacyError(
            f"count = {count!r} of a release is not a whole number from 0 to {MAX_COUNT}.",
            next_step="Give the number of releases as a Python int.",
        )


def _unknown(event: object) -> PrivacyError:
    return PrivacyError(
        f"An event of type {type(event).__name__} is unknown, or nested over {MAX_NESTING} deep.",
        next_step="Describe the release by GaussianEvent, PoissonGaussianEvent or ComposedEvent.",
        code="privacy.event-unknown",
    )


def _unreadable(reason: str, hint: str = "") -> PrivacyError:
    return PrivacyError(
        f"The text describes no privacy event: {reason}.",
        next_step=hint or "Use text written by fedtl.privacy.events.to_json.",
        code="privacy.event-unreadable",
    )
