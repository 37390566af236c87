"""Who is there before a round, who can take part, and why the others cannot: named per site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedtl import __version__
from fedtl.errors import FedtlError
from fedtl.privacy.plan import PrivacyPlan
from fedtl.rounds.check import MISSING, failure_code
from fedtl.types import NO_BACKBONE, PREPARING, READY, Description
from fedtl.wire.messages import DESCRIBE, read_description


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run needs its sites to have.

    Attributes
    ----------
    backbone : str
        Digest of backbone, taps and transform.
    width : int
        Features per example, bias feature included.
    classes : tuple of str
        In order; empty: those that most sites have.
    plan : PrivacyPlan or None
        Sites say whether they would take part in it; None: it is not made yet, or there is none.
    """

    backbone: str
    width: int
    classes: tuple[str, ...] = ()
    version: str = __version__
    plan: PrivacyPlan | None = None


@dataclass(frozen=True, slots=True)
class Roll:
    """Who is there.

    Attributes
    ----------
    present : mapping of int to Description
        Nodes that can take part, in name order.
    coming : mapping of int to Description
        Nodes that will be able to when they have the backbone or its features.
    left_out : mapping of str to str
        Site (or ``node 17``) to why it cannot take part, in words.
    """

    present: Mapping[int, Description] = field(default_factory=dict)
    coming: Mapping[int, Description] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[int, str]:
        """Node id to site name, of those that can take part."""
        return {node: description.name for node, description in self.present.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of those that can take part."""
        return next((d.classes for d in self.present.values()), ())


def call_roll(
    grid: Grid, nodes: Mapping[int, str], wanted: Wanted, *, timeout: float | None = None
) -> Roll:
    """Ask nodes who they are, and hold what they say against what the run needs.

    Parameters
    ----------
    nodes : mapping of int to str
        Node id to the name that its key was enrolled under; empty where none is known.
    timeout : float, optional
        Longest wait for the answers, in seconds.
    """
    asked = {"config": ConfigRecord({"plan": wanted.plan.to_json()})} if wanted.plan else {}
    content = RecordDict(dict(asked))
    messages = [Message(content, node, DESCRIBE) for node in sorted(nodes)]
    replies = {r.metadata.src_node_id: r for r in grid.send_and_receive(messages, timeout=timeout)}
    left_out: dict[str, str] = {}
    found: dict[int, Description] = {}
    for node, enrolled in nodes.items():
        told = _told(replies.get(node))
        if isinstance(told, str):
            left_out[enrolled or f"node {node}"] = f"gave no description ({told})"
        elif enrolled and told.name != enrolled:
            left_out[enrolled] = f"calls itself '{told.name}', but its key is '{enrolled}'"
        else:
            found[node] = told
    return _sorted(found, left_out, wanted)


def _told(reply: Message | None) -> Description | str:
    """Return a node's description, or the code of why there is none."""
    if reply is None:
        return MISSING
    if reply.has_error():
        return failure_code(reply)
    try:
        return read_description(reply)
    except FedtlError as error:
        return error.code


def _sorted(found: Mapping[int, Description], left_out: dict[str, str], wanted: Wanted) -> Roll:
    """Part those that are ready from those that are not yet, and from those that never will be."""
    names = Counter(description.name for description in found.values())
    for name in [name for name, n in names.items() if n > 1]:
        left_out[name] = f"{names[name]} sites have this name"
    known = {node: d for node, d in found.items() if names[d.name] == 1}
    needed = wanted if wanted.classes else replace(wanted, classes=_usual(known))
    present, coming = {}, {}
    for node, told in sorted(known.items(), key=lambda item: item[1].name):
        if why := _differs(told, needed):
            left_out[told.name] = why
        elif told.state == READY and told.backbone == needed.backbone:
            present[node] = told
        elif told.state in (READY, NO_BACKBONE, PREPARING):
            coming[node] = told
        else:
            left_out[told.name] = f"cannot take part ({told.state})"
    return Roll(present, coming, left_out)


def _usual(found: Mapping[int, Description]) -> tuple[str, ...]:
    """Return the classes that most sites have; of equally many, those of the first by name."""
    lists = [d.classes for d in sorted(found.values(), key=lambda d: d.name) if d.classes]
    return Counter(lists).most_common(1)[0][0] if lists else ()


def _differs(told: Description, needed: Wanted) -> str:
    """Say in words how a site differs from what is needed; empty if it does not."""
    if told.version.split(".")[:2] != needed.version.split(".")[:2]:
        return f"runs fedtl {told.version}, and the server {needed.version}"
    if told.classes and told.classes != needed.classes:
        return f"has the classes {_short(told.classes)}, and the run {_short(needed.classes)}"
    same = told.backbone == needed.backbone
    if told.state == READY and same and told.width != needed.width:
        return f"has {told.width} features per example, and the run needs {needed.width}"
    return ""


def _short(classes: tuple[str, ...]) -> str:
    text = ", ".join(classes)
    return text if len(text) <= 60 else f"{text[:57]}... ({len(classes)})"
