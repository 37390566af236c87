"""A compressed update, and the memory of what was not sent of it."""

from __future__ import annotations

import numpy as np

from fedtl.errors import PrivacyError
from fedtl.site.site import Site
from fedtl.types import Arrays
from fedtl.wire.compress import compress
from fedtl.wire.messages import COMPRESS, Request


def compressed(site: Site, request: Request, head: Arrays, run: str, *, sealed: bool) -> Arrays:
    """Return what is sent of a trained head, and remember the rest of its move.

    Parameters
    ----------
    head : mapping of str to NDArray
        As it might leave the site: clipping and noise are behind it.
    sealed : bool
        Whether it will be hidden in a sum.

    Raises
    ------
    PrivacyError
        With code ``secagg.compressed``: compressed updates cannot be added up under their masks.
    """
    if request.compression is None:
        return head
    if sealed:
        raise PrivacyError(
            f"{site.name} was asked for a compressed update that is hidden in a sum.",
            next_step="Set compress.kind = 'none' or transport.secure = false in the recipe.",
            code="secagg.compressed",
        )
    name = f"{COMPRESS} {request.compression.to_json()}"
    memory = site.memory.before(run, name, request.round)
    move = {key: np.asarray(values - request.arrays[key]) for key, values in head.items()}
    sent, kept = compress(move, request.compression, memory)
    site.memory.keep(run, name, request.round, kept)
    return sent
