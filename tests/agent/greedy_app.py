"""A ClientApp that has a run's charter and wants more: `python greedy_app.py STATE USER GROUP`.

It becomes another Unix user than the agent's, reads from stdin what the coordinator of an honest
run would send, and prints the codes that it got, and every byte that came back.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedtl.agent.client import AgentClient
from fedtl.privacy.plan import PrivacyPlan
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity, records_to_bytes
from fedtl.wire.arrays import pack
from fedtl.wire.backbone import BACKBONE, offer_content
from fedtl.wire.charter import CHARTER, sign_charter
from fedtl.wire.messages import DESCRIBE, EVALUATE, LABELS, TRAIN, read_description, task_config

TOO_MUCH = 40 << 20
"""Numbers of a head, 8 bytes each: more than a message may hold."""


class Greedy:
    """Asks, and keeps what it got."""

    def __init__(self, state: Path, honest: Mapping[str, str]) -> None:
        self.agent = AgentClient(state / "agent.sock")
        self.recipe = Recipe.model_validate_json(honest["recipe"])
        self.plan = PrivacyPlan.from_json(honest["plan"])
        self.charter = ConfigRecord(
            {k: bytes.fromhex(honest[k]) for k in ("body", "key", "signature")}
        )
        self.task = TrainTask.of(self.recipe)
        self.got = b""
        reply = self.agent.ask(Message(RecordDict(), 1, DESCRIBE), 9, timeout=60)
        about = read_description(reply)
        self.head = initial_head("linear", about.width, len(about.classes))

    def asked(
        self,
        kind: str = TRAIN,
        *,
        charter: ConfigRecord | None = None,
        stranger: bool = False,
        head: Mapping[str, np.ndarray] | None = None,
        task: TrainTask | None = None,
        plan: PrivacyPlan | None = None,
        raw: bool = False,
        round_: int = 1,
    ) -> str:
        """Ask what an honest run asks, but for some changes."""
        config = task_config(task or self.task, None if raw else plan or self.plan)
        config["server-round"] = round_
        sent = RecordDict({"arrays": pack(head or self.head), "config": config})
        if not stranger:
            sent[CHARTER] = charter or self.charter
        return self.ask(kind, sent)

    def ask(self, kind: str, sent: RecordDict) -> str:
        """Return the code of a failure, or that it was answered, and what tells the answer."""
        reply = self.agent.ask(Message(sent, 1, kind), 9, timeout=120)
        if reply.has_error():
            return str(reply.error.reason)
        body = records_to_bytes(reply.content)
        self.got += body
        return f"answered {hash(body)}"

    def attempts(self) -> dict[str, str]:
        """Try everything; each result is a code, or what tells one answer from another."""
        body = self.charter["body"]
        assert isinstance(body, bytes)
        stranger = sign_charter(Identity.new(), run="mine", recipe=self.recipe)
        changed = ConfigRecord({**dict(self.charter.items()), "body": body.replace(b"1", b"2")})
        huge = {"weight": np.zeros((2, TOO_MUCH)), "bias": np.zeros(2)}
        nan = {name: np.full_like(values, np.nan) for name, values in self.head.items()}
        paths = {"../../etc/passwd": self.head["weight"], "/tmp/x": self.head["weight"]}
        two = RecordDict({"a": ArrayRecord(), "b": ArrayRecord(), CHARTER: self.charter})
        found = {
            "honest": self.asked(),
            "replayed": self.asked(),
            "no charter": self.asked(stranger=True),
            "another's charter": self.asked(charter=stranger),
            "a forged recipe": self.asked(charter=changed),
            "more steps": self.asked(task=replace(self.task, steps=50)),
            "batches of one": self.asked(task=replace(self.task, sampling="poisson", batch_size=1)),
            "a weaker plan": self.asked(plan=replace(self.plan, epsilon=50.0)),
            "no plan": self.asked(raw=True),
            "clear results": self.asked(EVALUATE, raw=True),
            "the labels": self.asked(LABELS, raw=True),
            "a head of NaN": self.asked(head=nan, round_=2),
            "path names": self.asked(head=paths, round_=2),
            "too much": self.asked(head=huge, round_=2),
            "two heads": self.ask(TRAIN, two),
            "a backbone": self.ask(BACKBONE, offer_content("{}", 100)),
        }
        for round_ in range(2, 60):  # as many as it can get, each about a head that shows most
            one = {n: v + np.float32(round_) for n, v in self.head.items()}
            found[f"again {round_}"] = self.asked(head=one, round_=round_)
        return found


if __name__ == "__main__":
    ensure_identity()
    greedy = Greedy(Path(sys.argv[1]), json.load(sys.stdin))
    os.setgroups([])
    os.setresgid(*[int(sys.argv[3])] * 3)
    os.setresuid(*[int(sys.argv[2])] * 3)
    told = greedy.attempts()
    print(json.dumps({"codes": told, "bytes": b64encode(greedy.got).decode()}))
