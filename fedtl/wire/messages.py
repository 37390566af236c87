"""What fedtl's messages say: one pair of functions for each kind, so that both ends agree.

=====================  =================================================  =========================
message type           asks                                               answer
=====================  =================================================  =========================
``train``              head + config (task, plan, seed, server-round)     trained head + metrics
``train.statistics``,  config (plan, seed, server-round); head, if        sums + metrics
``train.mean``,        features are whitened; which statistic
``train.covariance``,
``train.sums``
``train.labels``       config (plan, seed, server-round 0)                counts of labels + metrics
``evaluate``           head + config (plan, seed, server-round,           sums of right and wrong
                       confusion)                                         answers and of losses
``query.describe``     nothing                                            a public description
``query.secagg_...``   config with a body, see :mod:`fedtl.wire.sealed`   config with a body
=====================  =================================================  =========================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedtl.errors import FedtlError, SiteFailure
from fedtl.privacy.plan import PrivacyPlan, Release
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.task import TrainTask
from fedtl.types import Description, Update
from fedtl.wire.arrays import HostRecordDict, pack, unpack
from fedtl.wire.charter import CHARTER, Charter, read_charter
from fedtl.wire.compress import Compression
from fedtl.wire.kinds import ADDITIVE as ADDITIVE
from fedtl.wire.kinds import COVARIANCE as COVARIANCE
from fedtl.wire.kinds import DESCRIBE as DESCRIBE
from fedtl.wire.kinds import EVALUATE as EVALUATE
from fedtl.wire.kinds import LABELS as LABELS
from fedtl.wire.kinds import MEAN as MEAN
from fedtl.wire.kinds import MECHANISMS as MECHANISMS
from fedtl.wire.kinds import STATISTICS as STATISTICS
from fedtl.wire.kinds import SUMS as SUMS
from fedtl.wire.kinds import TRAIN as TRAIN
from fedtl.wire.objective import BESIDE, read_objective

SEALED = "secagg"
"""Key of the record that asks for an answer hidden in a sum; see :mod:`fedtl.wire.sealed`."""
COMPRESS = "compress"
"""Key of what a config says about the size of the answer; see :mod:`fedtl.wire.compress`."""
PERSONAL, CONFIDENCE = "personal", "confidence"
"""Keys of what a config says of personal heads; the first also of what an answer says."""
SILENT = "silent"
"""Key of what a config says of telling nothing."""
WEIGHT, RELEASES, STEPS = "num-examples", "releases", "steps"
_FAILURE = 1

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)

# every message of a run says the same, and a message of a simulation costs less than its parsing
_read_task = lru_cache(maxsize=16)(TrainTask.from_json)
_read_plan = lru_cache(maxsize=16)(PrivacyPlan.from_json)
_read_compression = lru_cache(maxsize=16)(Compression.from_json)


def records(content: RecordDict, kind: type[Record]) -> list[Record]:
    """Return the records of one kind; Flower's own views of them are 20 times slower."""
    return [record for record in content.values() if isinstance(record, kind)]


@dataclass(frozen=True, slots=True)
class Request:
    """A training, statistics, labels or evaluation message, read and checked."""

    arrays: dict[str, NDArray[Any]]
    task: TrainTask | None
    plan: PrivacyPlan | None
    round: int
    seed: int | None
    confusion: bool = True
    charter: Charter | None = None
    objective: ObjectiveName | None = None
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    compression: Compression | None = None
    personal: ObjectiveName | None = None
    silent: bool = False
    confidence: float = 0.0


def task_config(
    task: TrainTask, plan: PrivacyPlan | None, *, seed: int | None = None
) -> ConfigRecord:
    """Return the config of a run's training messages; Flower's strategies add ``server-round``.

    ``seed`` is for simulations only. A real site ignores it and takes its noise from the operating
    system.
    """
    config = ConfigRecord({"task": task.to_json(), "plan": plan.to_json() if plan else ""})
    if seed is not None:
        config["seed"] = seed
    return config


def read_request(content: RecordDict) -> Request:
    """Read what a server sent; whatever is not understood is refused with a code."""
    others = (SEALED, CHARTER)
    configs = (r for k, r in content.items() if k not in others and isinstance(r, ConfigRecord))
    config = next(configs, ConfigRecord())
    beside = content.get(BESIDE)
    heads = [r for k, r in content.items() if k != BESIDE and isinstance(r, ArrayRecord)]
    if len(heads) > 1:
        raise unreadable()
    round_, seed = config.get("server-round", 1), config.get("seed")
    task, plan = config.get("task", ""), config.get("plan", "")
    confusion, smaller = config.get("confusion", True), config.get(COMPRESS, "")
    personal, silent = config.get(PERSONAL, ""), config.get(SILENT, False)
    confidence = config.get(CONFIDENCE, 0.0)
    if not (
        isinstance(round_, int)
        and isinstance(task, str)
        and isinstance(plan, str)
        and isinstance(seed, int | None)
        and isinstance(confusion, bool)
        and isinstance(smaller, str)
        and isinstance(personal, str)
        and isinstance(silent, bool)
        and isinstance(confidence, float)
        and 0 <= confidence < 1
    ):
        raise unreadable()
    return Request(
        arrays=unpack(heads[0]) if heads else {},
        task=_read_task(task) if task else None,
        plan=_read_plan(plan) if plan else None,
        round=round_,
        seed=seed,
        confusion=confusion,
        charter=read_charter(content),
        objective=read_objective(config),
        compression=_read_compression(smaller) if smaller else None,
        beside=unpack(beside) if isinstance(beside, ArrayRecord) else {},
        personal=ObjectiveName.from_json(personal) if personal else None,
        silent=silent,
        confidence=confidence,
    )


def release_of(request: Request, kind: str) -> Release | None:
    """Return what a request's plan says about the answer to a type of message; None without a plan.

    Metrics and labels may be told in clear beside a plan that does not cover them, where the site's
    policy says so.

    Raises
    ------
    PrivacyError
        With code ``plan.mismatch``: the plan does not cover it.
    """
    mechanism = MECHANISMS[kind]
    if request.plan is None or (kind in (LABELS, EVALUATE) and not request.plan.covers(mechanism)):
        return None
    return request.plan.release(mechanism)


def unreadable() -> FedtlError:
    """Return the error of a message that is none of fedtl's."""
    return FedtlError("The message is not one of fedtl's.", code="message.invalid")


def update_reply(request: Message, update: Update) -> Message:
    """Answer a training message."""
    metrics = _metrics(update.weight, update.releases, update.steps).copy()
    content = HostRecordDict({"arrays": pack(update.arrays), "metrics": metrics})
    return Message(content, reply_to=request)


@lru_cache(maxsize=1024, typed=True)
def _metrics(weight: float, releases: int, steps: int) -> MetricRecord:
    """Return an update's metrics to copy: Flower's checks of types take ten times as long."""
    told = MetricRecord({WEIGHT: weight, RELEASES: releases})
    if steps:
        told[STEPS] = steps
    return told


def description_reply(request: Message, description: Description) -> Message:
    """Answer a query message with the site's public description."""
    config = ConfigRecord(
        {
            "name": description.name,
            "classes": list(description.classes),
            "backbone": description.backbone,
            "width": description.width,
            "version": description.version,
            "state": description.state,
        }
    )
    if description.epsilon_left is not None:
        config["epsilon-left"] = description.epsilon_left
    return Message(RecordDict({"description": config}), reply_to=request)


def read_description(reply: Message) -> Description:
    """Read a site's public description.

    Raises
    ------
    FedtlError
        With code ``message.invalid``.
    """
    try:
        (config,) = records(reply.content, ConfigRecord)
        name, classes, width = config["name"], config["classes"], config["width"]
        backbone, version = str(config["backbone"]), str(config["version"])
        state, left = str(config.get("state", "ready")), config.get("epsilon-left")
    except (KeyError, ValueError) as error:
        raise unreadable() from error
    if not isinstance(name, str) or not isinstance(classes, list) or not isinstance(width, int):
        raise unreadable()
    if not isinstance(left, float | None):
        raise unreadable()
    listed = tuple(str(c) for c in classes)
    return Description(name, listed, backbone, width, version, state, left)


def failure_reply(request: Message, failure: SiteFailure) -> Message:
    """Answer any message with a failure code, and nothing else."""
    return Message(Error(code=_FAILURE, reason=failure.code), reply_to=request)
