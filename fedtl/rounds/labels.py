"""One question before the first round: how many training examples of each class the sites have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.rounds.check import SHAPE, usable_replies
from fedtl.wire.arrays import unpack
from fedtl.wire.messages import LABELS, MECHANISMS, records

Counts = dict[str, NDArray[np.float64]]


def ask_labels(
    grid: Grid,
    *,
    sites: Mapping[int, str],
    config: ConfigRecord,
    classes: int,
    timeout: float | None = None,
) -> tuple[Counts, dict[str, str]]:
    """Ask every site for its counts of labels.

    Parameters
    ----------
    sites : mapping of int to str
        Node id to site name.
    config : ConfigRecord
        That of the run's training messages.
    timeout : float, optional
        Seconds to wait.

    Returns
    -------
    tuple
        Site name to counts ``[C]``, with noise where the plan covers labels, and site name to
        failure code for those without any; nobody's refusal stops a run.
    """
    asked = {key: value for key, value in config.items() if key != "task"}
    content = RecordDict({"config": ConfigRecord({**asked, "server-round": 0})})
    messages = [Message(content, node, LABELS) for node in sorted(sites, key=sites.__getitem__)]
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    usable, failures = usable_replies(messages, replies, sites, {})
    counts: Counts = {}
    for reply in usable:
        name = sites[reply.metadata.src_node_id]
        (arrays,) = records(reply.content, ArrayRecord)
        told = unpack(arrays).get(MECHANISMS[LABELS])
        if told is None or told.shape != (classes,):
            failures[name] = SHAPE
        else:
            counts[name] = np.asarray(told, np.float64)
    return counts, failures
