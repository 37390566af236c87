"""Who is whose neighbour: everyone up to 47 sites, a ring of O(log n) links beyond.

A Harary graph on a shuffled ring (Bell et al. 2020, algorithm 1). The shuffle is a hash of all
public keys, so every site finds its own neighbours and need not believe the server.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable


def degree(sites: int) -> int:
    """Return how many neighbours each of ``sites`` sites has."""
    wanted = 2 * math.ceil(4 * math.log2(max(sites, 2)))
    return min(wanted, sites - 1)


def neighbourhoods(names: Iterable[str], seed: bytes) -> dict[str, tuple[str, ...]]:
    """Return each site's neighbours and itself, in name order; links go both ways."""
    ring = sorted(names, key=lambda name: hashlib.sha256(seed + name.encode()).digest())
    n, k = len(ring), degree(len(ring))
    if k >= n - 1:
        everyone = tuple(sorted(ring))
        return dict.fromkeys(everyone, everyone)
    reach = range(-(k // 2), k // 2 + 1)
    return {
        name: tuple(sorted(ring[(at + step) % n] for step in reach)) for at, name in enumerate(ring)
    }
