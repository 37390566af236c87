"""Bad sites, as a Grid around a Grid: what they train is exchanged for what an attacker sends.

Written with u for a site's update: its trained head less the head it was sent (sums are taken as
they are), and s for the strength:

==============  =============================================================  ===================
kind            a bad site sends                                               paper
==============  =============================================================  ===================
``sign_flip``   -s u                                                           Li et al. 2019,
                                                                               arXiv:1811.03761
``scaling``     s u                                                            Bagdasaryan et al.
                                                                               2020,
                                                                               arXiv:1807.00459
``gaussian``    normal noise, s times as large as u                            Blanchard et al.
                                                                               2017,
                                                                               arXiv:1703.02757
``alie``        mean - s * deviation of the good sites' updates, in every      Baruch et al. 2019,
                coordinate; s from the numbers of sites unless given           arXiv:1902.06156
``ipm``         -s times the mean of the good sites' updates                   Xie et al. 2020,
                                                                               arXiv:1903.03936
``free_rider``  nothing, but for normal noise s times as large as the head     Fraboni et al. 2021,
                                                                               arXiv:2006.11901
==============  =============================================================  ===================

``alie`` and ``ipm`` know all good updates of the round, which is more than their papers assume. The
seventh attack, ``label_flip``, is not one on messages: its sites are honest, and their labels are
not (:func:`fedtl.launch.attacks.poisoned`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fedtl.errors import RecipeError, TransportError, nearest
from fedtl.rng import stream
from fedtl.strategies.updates import Matrix, flat, moved, replaced
from fedtl.transport.wrappers import WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack
from fedtl.wire.messages import ADDITIVE, SEALED, TRAIN, records

STRENGTHS: dict[str, float] = {
    "sign_flip": 4.0,
    "scaling": 10.0,
    "gaussian": 10.0,
    "alie": 0.0,
    "ipm": 0.5,
    "free_rider": 1e-3,
}
"""Attacks on messages, and their strengths unless others are given; 0: from the number of sites."""
_ATTACKED = frozenset({TRAIN, *ADDITIVE})


def bad_sites(names: Iterable[str], *, share: float, seed: int) -> frozenset[str]:
    """Draw the bad ones of some sites: the same for the same names and seed.

    Parameters
    ----------
    share : float
        Of the sites, rounded down.

    Raises
    ------
    RecipeError
        Not one site is bad.

    Examples
    --------
    >>> sorted(bad_sites("abcde", share=0.4, seed=1))
    ['b', 'd']
    """
    ordered = sorted(names)
    count = int(share * len(ordered) + 1e-9)
    if not count:
        raise RecipeError(
            f"attack.share = {share:g} of {len(ordered)} sites is not one site.",
            next_step=f"Set attack.share to at least {1 / max(len(ordered), 1):.2g}, or "
            "attack.kind = 'none'.",
        )
    picked = stream(seed, "attack").choice(len(ordered), count, replace=False)
    return frozenset(ordered[at] for at in picked)


def alie_strength(n: int, bad: int) -> float:
    """Return z_max: so many deviations away, enough good sites still lie further out.

    Baruch et al. 2019, algorithm 3: s = ⌊n / 2 + 1⌋ - f good ones have to be outside, so that z_max
    is the largest z with Φ(z) < (n - f - s) / (n - f). Where no good one has to be, one is.

    Examples
    --------
    >>> round(alie_strength(50, 24), 4)
    1.4261
    """
    good = max(n - bad, 1)
    outside = max(n // 2 + 1 - bad, 1)
    inside = min(max(good - outside, 1e-6), good - 1e-6)
    return NormalDist().inv_cdf(inside / good)


@dataclass(frozen=True, slots=True)
class _Read:
    """A reply as numbers: what it moved, and by how much."""

    reply: Message
    site: str
    start: Arrays
    update: Matrix
    round: int

    @classmethod
    def of(cls, asked: Message, reply: Message, site: str) -> _Read:
        """Read an answer to a message; heads are relative to the one that was sent."""
        if SEALED in asked.content:
            raise TransportError(
                f"The answer of {site} is sealed, and no attack can reach into it.",
                next_step="Put attacks around sites that answer in clear: transport.secure = "
                "false.",
                code="attack.sealed",
            )
        arrays = unpack(records(reply.content, ArrayRecord)[0])
        sent = records(asked.content, ArrayRecord)
        head = unpack(sent[0]) if sent else {}
        start = {name: head.get(name, np.zeros_like(v)) for name, v in arrays.items()}
        round_ = next((r.get("server-round") for r in records(asked.content, ConfigRecord)), 0)
        update = flat(arrays) - flat(start)
        return cls(reply, site, start, update, round_ if isinstance(round_, int) else 0)


class AttackedGrid(WrappedGrid):
    """A Grid some of whose sites are bad; nobody else notices.

    A bad site trains (and pays, and evaluates) like any other; then its answer is exchanged. What
    it sends depends on seed, round, its name, and the round's replies only, so every transport
    sends the same.

    Parameters
    ----------
    inner : Grid
        Where sites answer in clear: of a sealed answer nothing can be exchanged.
    kind : str
        One of :data:`STRENGTHS`.
    bad : iterable of str
        Names of the bad sites.
    names : mapping of int to str
        Node id to site name.
    seed : int
        The run's.
    strength : float, optional
        s; default: :data:`STRENGTHS`.

    Raises
    ------
    RecipeError
        There is no such attack on messages.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        kind: str,
        bad: Iterable[str],
        names: Mapping[int, str],
        seed: int,
        strength: float | None = None,
    ) -> None:
        super().__init__(inner)
        if kind not in STRENGTHS:
            raise RecipeError(
                f"'{kind}' is no attack on messages.", next_step=nearest(kind, STRENGTHS)
            )
        self._kind, self._bad, self._names, self._seed = kind, frozenset(bad), names, seed
        self._strength = STRENGTHS[kind] if strength is None else strength
        self._pushed: dict[str, Message] = {}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages, wait, and exchange what bad sites answer."""
        sent = list(messages)
        asked = {(m.metadata.dst_node_id, m.metadata.message_type): m for m in sent}
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        return self._exchanged(
            [(asked[r.metadata.src_node_id, r.metadata.message_type], r) for r in replies]
        )

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages."""
        sent = list(messages)
        ids = list(self.inner.push_messages(sent))
        self._pushed.update(zip(ids, sent, strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies, exchanged; ``alie`` and ``ipm`` know those pulled together."""
        replies = list(self.inner.pull_messages(message_ids))
        return self._exchanged(
            [(self._pushed.pop(r.metadata.reply_to_message_id), r) for r in replies]
        )

    def _exchanged(self, pairs: Sequence[tuple[Message, Message]]) -> list[Message]:
        """Return the replies to some messages, those of bad sites exchanged."""
        read = [
            _Read.of(asked, reply, self._names[reply.metadata.src_node_id])
            for asked, reply in pairs
            if reply.has_content() and reply.metadata.message_type in _ATTACKED
        ]
        bad = [one for one in read if one.site in self._bad]
        if not bad:
            return [reply for _, reply in pairs]
        good = [one.update for one in read if one.site not in self._bad]
        seen = np.stack(good or [one.update for one in bad])
        others = {
            id(one.reply): replaced(one.reply, moved(one.start, self._sent(one, seen, len(bad))))
            for one in bad
        }
        return [others.get(id(reply), reply) for _, reply in pairs]

    def _sent(self, one: _Read, seen: Matrix, n_bad: int) -> Matrix:
        """Return the update that a bad site sends, ``[p]``.

        Parameters
        ----------
        seen : NDArray
            ``[g, p]`` updates of the good sites; of the bad ones where no good one answered.
        n_bad : int
            Bad sites that answered.
        """
        s = self._strength
        if self._kind == "sign_flip":
            return -s * one.update
        if self._kind == "scaling":
            return s * one.update
        if self._kind == "alie":
            s = s or alie_strength(len(seen) + n_bad, n_bad)
            return np.asarray(seen.mean(axis=0) - s * seen.std(axis=0))
        if self._kind == "ipm":
            return np.asarray(-s * seen.mean(axis=0))
        like = one.update if self._kind == "gaussian" else flat(one.start)
        noise = stream(self._seed, f"attack.{self._kind}", one.round, one.site)
        size = float(np.sqrt(np.mean(np.square(like))))
        return noise.normal(scale=s * size, size=like.shape)
