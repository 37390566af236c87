"""What messages of secure aggregation say; the stages are those of :mod:`fedtl.privacy.secagg`.

==========================  =====================================  ===============================
message type                asks                                   answer
==========================  =====================================  ===============================
``query.secagg_keys``       the session                            the site's signed keys
``query.secagg_shares``     everyone's keys                        boxes for the neighbours
``train`` and the like      as ever, with a record ``secagg``      one masked vector of uint64
                            (session, boxes)
``query.secagg_confirm``    the list of survivors                  the site's signature under it
``query.secagg_reveal``     the neighbours' signatures             shares of masks
==========================  =====================================  ===============================
"""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedtl.errors import FedtlError
from fedtl.wire.arrays import unpack
from fedtl.wire.kinds import CONFIRM as CONFIRM
from fedtl.wire.kinds import KEYS as KEYS
from fedtl.wire.kinds import REVEAL as REVEAL
from fedtl.wire.kinds import SHARES as SHARES
from fedtl.wire.messages import SEALED, records

MASKED = "masked"
"""Name of the array that a sealed update consists of."""


def stage_content(body: bytes) -> RecordDict:
    """Return what a stage's message or answer says."""
    return RecordDict({SEALED: ConfigRecord({"body": body})})


def read_stage(content: RecordDict) -> bytes:
    """Read :func:`stage_content`.

    Raises
    ------
    FedtlError
        With code ``message.invalid``.
    """
    return _bytes(content.get(SEALED), "body")


def sealed_content(content: RecordDict, session: bytes, boxes: bytes) -> RecordDict:
    """Return a request with the record that asks for a sealed answer; its other records are shared.

    Requests of one round stay one cohort that way (see :func:`fedtl.site.answer.answer_train`).
    """
    sealed = RecordDict(dict(content.items()))
    sealed[SEALED] = ConfigRecord({"session": session, "boxes": boxes})
    return sealed


def read_sealed(content: RecordDict) -> tuple[bytes, bytes] | None:
    """Read session and boxes of a request; None if the answer need not be sealed."""
    if SEALED not in content:
        return None
    record = content[SEALED]
    return _bytes(record, "session"), _bytes(record, "boxes")


def read_masked(reply: Message) -> NDArray[np.uint64]:
    """Read the masked vector of an answer.

    Raises
    ------
    FedtlError
        With code ``message.invalid``: it has none, or anything beside it.
    """
    arrays = records(reply.content, ArrayRecord)
    values = unpack(arrays[0], dtypes=("uint64",)) if len(arrays) == 1 else {}
    if set(values) != {MASKED} or values[MASKED].ndim != 1:
        raise _invalid()
    vector: NDArray[np.uint64] = values[MASKED]
    return vector


def _bytes(record: object, key: str) -> bytes:
    value = record.get(key) if isinstance(record, ConfigRecord) else None
    if not isinstance(value, bytes):
        raise _invalid()
    return value


def _invalid() -> FedtlError:
    return FedtlError(
        "The message is not one of fedtl's secure aggregation.",
        next_step="Server and site must run the same version of fedtl.",
        code="message.invalid",
    )
