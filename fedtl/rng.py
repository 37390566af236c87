"""Named random streams: one seed per run, one independent stream per purpose, round and site."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, purpose: str, round_: int = 0, site: str = "") -> np.random.Generator:
    """Return the generator of one purpose, round and site: the same for the same arguments.

    The key is a 128-bit BLAKE2b digest of the arguments, so streams do not depend on the order in
    which they are asked for, and no state has to be saved for a run to be resumed. The numbers are
    reproducible and therefore never a source of noise for a real privacy guarantee.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str
        What the numbers are for, e.g. ``"noise"``.
    round_ : int
        Server round, from 1; 0 outside rounds.
    site : str
        Site name; empty for the server.

    Examples
    --------
    >>> a, b = stream(1, "cohort", 3), stream(1, "cohort", 3)
    >>> bool(a.random() == b.random())
    True
    """
    key = int.from_bytes(key_of(seed, purpose, round_, site), "little")
    return np.random.Generator(np.random.SFC64(key))


def key_of(seed: int, purpose: str, round_: int = 0, site: str = "") -> bytes:
    """Return the 128-bit BLAKE2b digest that names a stream."""
    text = f"{seed}\x1f{purpose}\x1f{round_}\x1f{site}".encode()
    return hashlib.blake2b(text, digest_size=16).digest()
