"""A whole session among sites in memory, with whoever is lost at whatever stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedtl.privacy import secagg
from fedtl.privacy.secagg import Identity, Secrets, Server, Session
from fedtl.privacy.secagg.masks import Words

STAGES = ("keys", "shares", "masked", "confirm", "unmask")
IDENTITIES = [Identity.new() for _ in range(130)]


def session(n: int, **changes: object) -> Session:
    values: dict[str, object] = {
        "run": "1",
        "round": 1,
        "number": 1,
        "invited": n,
        "threshold": 2 / 3,
        "bound": 100.0,
    }
    return Session(**(values | changes))  # type: ignore[arg-type]


def names(n: int) -> list[str]:
    return [f"site-{at:03}" for at in range(n)]


def remembered(secrets: Secrets) -> Secrets:
    """Return what a fresh process reads: each stage of a site may run in a process of its own."""
    return Secrets.from_bytes(secrets.to_bytes())


@dataclass
class Play:
    """A session at any point, as a test left it."""

    session: Session
    server: Server
    secrets: dict[str, Secrets] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)
    heard: dict[str, bytes] = field(default_factory=dict)
    masked: dict[str, Words] = field(default_factory=dict)
    survivors: bytes = b""
    revealed: list[str] = field(default_factory=list)


def identity(name: str) -> Identity:
    return IDENTITIES[int(name[-3:])]


def play(
    this: Session,
    vectors: Mapping[str, Words],
    *,
    lost: Mapping[str, Collection[str]] | None = None,
    until: str = "",
) -> tuple[Play, Words | None]:
    """Run a session; ``lost`` says by stage whose messages do not arrive.

    Returns
    -------
    tuple
        The session, and the sum unless it was left before the stage ``until``.
    """
    gone = lost or {}
    p = Play(this, Server(this))

    def arrives(stage: str, said: dict[str, bytes]) -> dict[str, bytes]:
        return {n: body for n, body in said.items() if n not in gone.get(stage, ())}

    for name in vectors:
        p.secrets[name], p.said[name] = secagg.advertise(this, name, identity(name))
    p.heard = dict.fromkeys(known := arrives("keys", p.said), p.server.roster(known))
    if until == "shares":
        return p, None
    p.said = {}
    for name, roster in p.heard.items():
        p.secrets[name], p.said[name], _ = secagg.share(remembered(p.secrets[name]), roster, {})
    p.heard = p.server.boxes(arrives("shares", p.said))
    if until == "masked":
        return p, None
    for name, boxes in p.heard.items():
        opened = secagg.open_shares(remembered(p.secrets[name]), boxes)
        p.secrets[name], p.masked[name] = secagg.mask(remembered(opened), vectors[name])
    p.masked = {n: v for n, v in p.masked.items() if n not in gone.get("masked", ())}
    p.survivors = p.server.collect(p.masked)
    if until == "confirm":
        return p, None
    p.said = {}
    for name in p.server.survivors:
        p.secrets[name], p.said[name] = secagg.confirm(
            remembered(p.secrets[name]), p.survivors, identity(name)
        )
    p.heard = p.server.signatures(arrives("confirm", p.said))
    if until == "unmask":
        return p, None
    p.said = {n: secagg.reveal(remembered(p.secrets[n]), body) for n, body in p.heard.items()}
    p.revealed = sorted(p.said)
    return p, p.server.total(arrives("unmask", p.said))


def random_vectors(n: int, length: int, seed: int = 0) -> dict[str, Words]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2**64, length, np.uint64) for name in names(n)}


def plain_sum(vectors: Mapping[str, Words], chosen: Collection[str]) -> Words:
    total = np.zeros_like(next(iter(vectors.values())))
    for name in chosen:
        total += vectors[name]
    return total
