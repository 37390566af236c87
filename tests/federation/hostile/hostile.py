"""A Flower app whose ClientApp wants everything; its server writes down what it was told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    asked = RecordDict({"places": ConfigRecord(dict(context.run_config))})
    messages = [Message(asked, node, "query") for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=120)
    told = [
        {"error": str(r.error.reason)} if r.has_error() else dict(r.content["told"])
        for r in replies
    ]
    Path(str(context.run_config["out"])).write_text(json.dumps(told))


@client.query()
def everything(message: Message, context: Context) -> Message:
    places = message.content["places"]
    state, data = Path(places["state"]), Path(places["data"])
    if str(state) not in str(context.node_config.get("agent")):
        return Message(RecordDict({"told": ConfigRecord()}), reply_to=message)
    told = {"user": str(os.getuid()), **from_files(state, data), **from_agent(state)}
    return Message(RecordDict({"told": ConfigRecord(told)}), reply_to=message)


def from_files(state: Path, data: Path) -> dict[str, str]:
    attempts: dict[str, Callable[[], object]] = {
        "file: state folder": lambda: sorted(state.iterdir()),
        "file: policy": (state / "policy.toml").read_text,
        "file: ledger": (state / "ledger.sqlite").read_bytes,
        "file: no ledger": (state / "ledger.sqlite").unlink,
        "file: key": (state / "identity.key").read_bytes,
        "file: data": data.read_bytes,
        "file: log": (state / "logs" / "agent.log").read_text,
        "file: the agent's memory": lambda: (agent_process(state) / "mem").open("rb").read(1),
    }
    return {what: tried(attempt) for what, attempt in attempts.items()}


def tried(attempt: Callable[[], object]) -> str:
    try:
        return f"GOT {attempt()!r:.200}"
    except Exception as error:
        return type(error).__name__


def agent_process(state: Path) -> Path:
    wanted = f"agent\0{state}"
    found = (p for p in Path("/proc").glob("[0-9]*") if wanted in (p / "cmdline").read_text())
    return next(found)


def from_agent(state: Path) -> dict[str, str]:
    from fedtl.agent.client import AgentClient
    from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
    from fedtl.privacy.secagg import Identity
    from fedtl.recipe import Recipe
    from fedtl.train.heads import initial_head
    from fedtl.train.task import TrainTask
    from fedtl.wire.arrays import pack
    from fedtl.wire.charter import CHARTER, sign_charter
    from fedtl.wire.messages import DESCRIBE, read_description, task_config

    agent = AgentClient(state / "agent.sock")
    about = read_description(agent.ask(Message(RecordDict(), 1, DESCRIBE), 9, timeout=60))
    head = pack(initial_head("linear", about.width, len(about.classes)))
    task = TrainTask(rounds=1)
    alone = replace(task, sampling="poisson", batch_size=1)
    weak = plan_for(
        Release(mechanism="gradients", count=99, public_size=1.0), epsilon=1e3, delta=1e-3
    )
    recipe = Recipe.model_validate({"privacy": {"enabled": False}})
    forged = {CHARTER: sign_charter(Identity.new(), run="mine", recipe=recipe)}

    def ask(
        kind: str, how: TrainTask = task, plan: PrivacyPlan | None = None, **more: ConfigRecord
    ) -> str:
        sent = RecordDict({"arrays": head, "config": task_config(how, plan), **more})
        reply = agent.ask(Message(sent, 1, kind), 9, timeout=60)
        return str(reply.error.reason) if reply.has_error() else f"GOT {sorted(reply.content)}"

    return {
        "a raw update": ask("train"),
        "one example": ask("train", alone),
        "a weak plan": ask("train", task, weak),
        "a forged recipe": ask("train", task, None, **forged),
        "sums": ask("train.mean"),
        "labels": ask("train.labels"),
        "results": ask("evaluate"),
        "features": ask("train.features"),
    }
