"""What a training message says of a client-side step (:mod:`fedtl.train.objectives`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from flwr.app import ConfigRecord, Message
from numpy.typing import NDArray

from fedtl.errors import FedtlError
from fedtl.train.objective_name import ObjectiveName
from fedtl.wire.arrays import pack

BESIDE = "beside"
"""Key of the record with what an objective wants beside the head."""
_OBJECTIVE, _PROXIMAL = "objective", "proximal-mu"

# every message of a run says the same
_read = lru_cache(maxsize=16)(ObjectiveName.from_json)


def with_objective(
    messages: Iterable[Message],
    objective: ObjectiveName,
    beside: Mapping[str, NDArray[Any]] | None = None,
) -> list[Message]:
    """Ask for a client-side step in training messages; they are changed and returned.

    Parameters
    ----------
    beside : mapping of str to NDArray, optional
        What the objective wants beside the head (see ``LocalObjective.sends``).
    """
    asked, text = list(messages), objective.to_json()
    sent = pack(beside) if beside else None
    for content in {id(m.content): m.content for m in asked}.values():  # one for all, mostly
        if sent is not None:
            content[BESIDE] = sent
        for config in content.values():
            if isinstance(config, ConfigRecord):
                config[_OBJECTIVE] = text
    return asked


def read_objective(config: ConfigRecord) -> ObjectiveName | None:
    """Return what is asked for beside cross-entropy; Flower's FedProx says it in its own way.

    Raises
    ------
    FedtlError
        With code ``message.invalid``.
    """
    named, mu = config.get(_OBJECTIVE, ""), config.get(_PROXIMAL, 0.0)
    if not isinstance(named, str) or isinstance(mu, bool) or not isinstance(mu, float | int):
        raise FedtlError("The message is not one of fedtl's.", code="message.invalid")
    if named:
        return _read(named)
    return ObjectiveName("fedprox", {"mu": float(mu)}) if mu else None
