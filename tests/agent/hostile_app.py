"""What a hostile ClientApp would try at a site: `python hostile_app.py STATE DATA HOME USER GROUP`.

It becomes another Unix user than the agent's and prints what it got: that has to be nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from flwr.app import Message, RecordDict
from test_agent import content
from toys import toy_plan

from fedtl.agent.client import AgentClient
from fedtl.privacy.plan import PrivacyPlan
from fedtl.wire.messages import DESCRIBE, read_description


def tried(attempt: Callable[[], object]) -> str:
    try:
        return f"GOT {attempt()!r:.80}"
    except Exception as error:
        return type(error).__name__


def asked(state: Path, kind: str, plan: PrivacyPlan | None = None, steps: int = 2) -> str:
    """Ask the agent itself for a head that fits; return its failure, or what came back."""
    agent = AgentClient(state / "agent.sock")
    about = agent.ask(Message(RecordDict(), 1, DESCRIBE), 9, timeout=60)
    if about.has_error():
        return str(about.error.reason)
    site = read_description(about)
    sent = content(plan, width=site.width, classes=len(site.classes), steps=steps)
    reply = agent.ask(Message(sent, 1, kind), 9, timeout=60)
    if reply.has_error():
        return str(reply.error.reason)
    return "GOT " + ", ".join(sorted(reply.content))


def _first_file(folder: Path) -> Path:
    return next(path for path in sorted(folder.rglob("*")) if path.is_file())


def attempts(state: Path, data: Path, home: Path) -> dict[str, str]:
    return {
        "list the state folder": tried(lambda: sorted(state.iterdir())),
        "read the policy": tried((state / "policy.toml").read_text),
        "change the policy": tried(lambda: (state / "policy.toml").write_text("x = true")),
        "read the ledger": tried((state / "ledger.sqlite").read_bytes),
        "delete the ledger": tried((state / "ledger.sqlite").unlink),
        "read the key": tried((state / "identity.key").read_bytes),
        "take the socket's place": tried((state / "agent.sock").unlink),
        "list the images": tried(lambda: sorted(data.iterdir())),
        "read an image": tried((data / "benign" / "0.png").read_bytes),
        "read a feature": tried(lambda: _first_file(home / "features").read_bytes()),
        "a raw update": asked(state, "train"),
        "raw sums": asked(state, "train.mean"),
        "the labels": asked(state, "train.labels"),
        "the exact results": asked(state, "evaluate"),
        "the features": asked(state, "train.features"),
        "an update without its noise": asked(state, "train", toy_plan(honest_sites=2), 1),
        "more than the plan": asked(state, "train", toy_plan(1)),
    }


if __name__ == "__main__":
    places = [Path(place) for place in sys.argv[1:4]]
    attempts(Path("/nonexistent"), *places[1:])  # imports what is imported late
    os.setgroups([])
    os.setresgid(*[int(sys.argv[5])] * 3)
    os.setresuid(*[int(sys.argv[4])] * 3)
    print(json.dumps(attempts(*places)))
