"""What evaluation messages ask, and what sites answer: counts, of which ratios are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedtl.train.objective_name import ObjectiveName
from fedtl.types import HEADS, Evaluation, Personal
from fedtl.wire.arrays import HostRecordDict
from fedtl.wire.messages import CONFIDENCE, PERSONAL, RELEASES, SILENT, WEIGHT, records, unreadable


def evaluation_config(
    config: ConfigRecord,
    *,
    round_: int,
    confusion: bool,
    personal: bool = False,
    silent: bool = False,
) -> ConfigRecord:
    """Return the config of a round's evaluation messages.

    Parameters
    ----------
    config : ConfigRecord
        That of the run's training messages.
    confusion : bool
        Whether sites are asked which classes the head takes for which.
    personal : bool
        Whether sites make heads of their own, for which they need the task; else it is left out.
    silent : bool
        Whether they are to tell nothing of their results.
    """
    kept: dict[str, Any] = {k: v for k, v in config.items() if k != "task" or personal}
    kept |= {"server-round": round_, "confusion": confusion}
    return ConfigRecord({**kept, SILENT: True} if silent else kept)


def with_personal(
    messages: Iterable[Message], asked: ObjectiveName, *, confidence: float
) -> list[Message]:
    """Ask for personal heads in evaluation messages; they are changed and returned.

    Parameters
    ----------
    asked : ObjectiveName
        How they are made.
    confidence : float
        In [0, 1), with which a head must be better than that which a site trained alone for the
        site to use it.
    """
    sent, text = list(messages), asked.to_json()
    for content in {id(m.content): m.content for m in sent}.values():
        for config in records(content, ConfigRecord):
            config[PERSONAL], config[CONFIDENCE] = text, confidence
    return sent


def evaluation_reply(request: Message, result: Evaluation) -> Message:
    """Answer an evaluation message; weight, loss and accuracy are for the averages of strategies.

    All of them follow from the sums, so they tell nothing more.
    """
    metrics: dict[str, int | float | list[int] | list[float]] = {
        WEIGHT: result.weight,
        **_ratios(result),
        "wrong": result.wrong,
        "right": result.right,
        "losses": result.losses,
        RELEASES: result.releases,
    }
    if result.confusion is not None:
        metrics["confusion"] = [float(v) for v in result.confusion.ravel()]
    if result.personal is not None:
        *counts, choice = astuple(result.personal)
        metrics[PERSONAL] = [*counts, HEADS.index(choice)]
    return Message(HostRecordDict({"metrics": MetricRecord(metrics)}), reply_to=request)


def _ratios(result: Evaluation) -> dict[str, float]:
    """Return a site's own loss and accuracy; 0 where it has none, as a nan would spread."""
    found = {"loss": result.loss, "accuracy": result.accuracy}
    return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}


def read_evaluation(reply: Message) -> Evaluation:
    """Read a site's answer to an evaluation message.

    Raises
    ------
    FedtlError
        With code ``message.invalid``: a failure, or anything that is not exactly such an answer.
    """
    try:
        (metrics,) = records(reply.content, MetricRecord)
        cells, releases = metrics.get("confusion"), metrics[RELEASES]
        if not isinstance(releases, int) or releases < 0:
            raise unreadable()
        wrong, right, losses = (float(metrics[k]) for k in ("wrong", "right", "losses"))  # type: ignore[arg-type]
        confusion = None if cells is None else _square(cells)
        personal = _personal(metrics.get(PERSONAL), 0 if releases else int(wrong + right))
        result = Evaluation(wrong, right, losses, confusion, releases, personal)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise unreadable() from error
    told: Mapping[str, object] = {WEIGHT: result.weight, **_ratios(result)}
    if not _possible(result) or any(metrics.get(k) != v for k, v in told.items()):
        raise unreadable()
    return result


def _personal(told: object, n: int) -> Personal | None:
    """Read what a site says of its heads, of ``n`` held-out examples."""
    if told is None:
        return None
    if not isinstance(told, list) or not all(isinstance(v, int) and 0 <= v <= n for v in told):
        raise unreadable()
    alone, global_, used, up, down, own_up, own_down, units, choice = told
    if max(up + down, own_up + own_down) > units:
        raise unreadable()
    return Personal(alone, global_, used, up, down, own_up, own_down, units, HEADS[choice])


def _square(cells: object) -> NDArray[np.float64]:
    values = np.asarray(cells, np.float64)
    return values.reshape(math.isqrt(len(values)), -1)


def _possible(result: Evaluation) -> bool:
    """Say whether there can be such sums: finite, and whole numbers that agree if in clear."""
    cells = result.confusion
    values = [result.wrong, result.right, result.losses]
    values += [] if cells is None else cells.ravel().tolist()
    if not all(math.isfinite(value) for value in values):
        return False
    if cells is not None and cells.shape[0] != cells.shape[1]:
        return False
    if result.releases:
        return True
    whole = cells is None or (cells.sum() == result.n and np.trace(cells) == result.right)
    return bool(whole and min(values) >= 0)
