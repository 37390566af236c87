"""Two questions in one message: evaluate the head that came, and train on it.

On Flower's deployment runtime a message costs a process at every site, which is nearly all that a
round costs there.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedtl.errors import FedtlError
from fedtl.wire.arrays import HostRecordDict
from fedtl.wire.charter import CHARTER
from fedtl.wire.messages import records
from fedtl.wire.objective import BESIDE

TOGETHER = "evaluation"
"""Key of the record that asks for an evaluation, and of the one that answers."""
_FAILURES = "failures"


def joined(train: RecordDict, evaluate: RecordDict) -> RecordDict:
    """Return the content that asks both; the head travels once."""
    (config,) = records(evaluate, ConfigRecord)
    return HostRecordDict({**dict(train.items()), TOGETHER: config})


def is_joined(content: RecordDict) -> bool:
    """Say whether a message asks for an evaluation as well."""
    return TOGETHER in content


def parted(content: RecordDict) -> tuple[RecordDict, RecordDict]:
    """Return what asks to train, and what asks to evaluate."""
    config = content[TOGETHER]
    if not isinstance(config, ConfigRecord):
        raise FedtlError("The message is not one of fedtl's.", code="message.invalid")
    train = {k: v for k, v in content.items() if k != TOGETHER}
    asked = {
        k: v
        for k, v in train.items()
        if k == CHARTER or (k != BESIDE and isinstance(v, ArrayRecord))
    }
    return HostRecordDict(train), HostRecordDict({**asked, "config": config})


def joined_reply(trained: Message, evaluated: Message) -> RecordDict:
    """Return one content that answers both; failures are codes."""
    content, failures = HostRecordDict(), {}
    if trained.has_error():
        failures["train"] = trained.error.reason or ""
    else:
        content.update(trained.content)
    if evaluated.has_error():
        failures["evaluate"] = evaluated.error.reason or ""
    else:
        (content[TOGETHER],) = records(evaluated.content, MetricRecord)
    content[_FAILURES] = ConfigRecord(dict(failures))
    return content


def parted_reply(content: RecordDict) -> tuple[RecordDict | str, RecordDict | str]:
    """Return the answers to both questions, each a content or a failure code."""
    parts = dict(content.items())
    failures, told = parts.pop(_FAILURES, None), parts.pop(TOGETHER, None)
    codes = dict(failures.items()) if isinstance(failures, ConfigRecord) else {}
    results = RecordDict({"metrics": told}) if isinstance(told, MetricRecord) else RecordDict()
    trained, evaluated = codes.get("train"), codes.get("evaluate")
    return (
        trained if isinstance(trained, str) else HostRecordDict(parts),
        evaluated if isinstance(evaluated, str) else results,
    )


def same_head(train: Message, evaluate: Message) -> bool:
    """Say whether two messages to one site carry the same arrays."""
    heads = [
        [r for key, r in m.content.items() if key != BESIDE and isinstance(r, ArrayRecord)]
        for m in (train, evaluate)
    ]
    if [len(found) for found in heads] != [1, 1]:
        return False
    first, second = (found[0] for found in heads)
    return first is second or (
        list(first) == list(second) and all(first[k].data == second[k].data for k in first)
    )
