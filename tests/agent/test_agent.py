"""The agent gives the answers of the site, one at a time, and nothing else; from a real socket."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from toys import CANARY, WIDTH, Toys, toy_plan

from fedtl.agent.agent_pb2 import Answer, Task
from fedtl.agent.calls import CALL_OF, CALLS, MOST_BYTES, OPTIONS, SERVICE
from fedtl.agent.client import AgentClient, thin_client_app
from fedtl.agent.server import serving
from fedtl.apps.client import make_client_app
from fedtl.errors import CacheError, TransportError
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.privacy.plan import PrivacyPlan
from fedtl.site.policy import SitePolicy
from fedtl.site.site import Site
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity, records_to_bytes
from fedtl.wire.arrays import pack
from fedtl.wire.backbone import BACKBONE
from fedtl.wire.messages import (
    COVARIANCE,
    DESCRIBE,
    EVALUATE,
    LABELS,
    MEAN,
    STATISTICS,
    SUMS,
    TRAIN,
    task_config,
)
from fedtl.wire.sealed import CONFIRM, KEYS, REVEAL, SHARES

ensure_identity()
RECORDS = DataSet.of(np.arange(96, dtype=np.uint8).reshape(3, 32))


def content(
    plan: PrivacyPlan | None = None,
    *,
    seed: int | None = 4,
    width: int = WIDTH,
    classes: int = 3,
    steps: int = 2,
) -> RecordDict:
    task = TrainTask(rounds=3, steps=steps, lr=0.5)
    config = task_config(task, plan, seed=seed)
    return RecordDict({"arrays": pack(initial_head("linear", width, classes)), "config": config})


def ask(socket: Path, kind: str, sent: RecordDict, run: int = 7) -> Message:
    return AgentClient(socket).ask(Message(sent, 1, kind), run, timeout=30)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def site() -> Site:
    return Toys().site("site-b")


@pytest.mark.parametrize("kind", [TRAIN, STATISTICS, MEAN, COVARIANCE, LABELS, EVALUATE, DESCRIBE])
def test_the_thin_app_gives_the_answers_of_the_site(kind: str, socket: Path, site: Site) -> None:
    """Byte for byte those of the ClientApp of a simulation."""
    config = {"agent": str(socket)}
    context = Context(run_id=7, node_id=1, node_config=config, state=RecordDict(), run_config={})  # type: ignore[arg-type]
    expected = make_client_app(lambda _: Toys().site("site-b"))(
        Message(content(), 1, kind), context
    )
    with serving(site, socket):
        thin = thin_client_app(otherwise=lambda: pytest.fail("a named agent was not asked"))
        got = thin(Message(content(), 1, kind), context)
    assert expected.has_content()
    assert records_to_bytes(got.content) == records_to_bytes(expected.content)


def test_only_its_owner_may_ask(socket: Path, site: Site) -> None:
    with serving(site, socket):
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert not socket.exists()
    with serving(site, socket, mode=0o660):
        assert stat.S_IMODE(socket.stat().st_mode) == 0o660


def raw(socket: Path, call: str, task: Task) -> Answer:
    with grpc.insecure_channel(f"unix:{socket}", options=[(OPTIONS[0][0], -1)]) as channel:
        asked = channel.unary_unary(
            f"/{SERVICE}/{call}",
            request_serializer=Task.SerializeToString,
            response_deserializer=Answer.FromString,
        )
        answer: Answer = asked(task, timeout=30)
        return answer


HOSTILE = {
    "no records": ("Train", Task(run=1, kind=TRAIN, content=b"\xff\xfe")),
    "another call's message": ("Evaluate", Task(run=1, kind=TRAIN, content=b"")),
    "an unknown type": ("Train", Task(run=1, kind="train.features", content=b"")),
    "a path for a type": ("Train", Task(run=1, kind="../../etc/passwd", content=b"")),
    "nothing": ("Train", Task()),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_message_gets_a_code(what: str, socket: Path, site: Site) -> None:
    call, task = HOSTILE[what]
    with serving(site, socket) as agent:
        answer = raw(socket, call, task)
        assert answer.failure in ("message.invalid", "head.invalid")
        assert not answer.content
        assert ask(socket, TRAIN, content()).has_content()  # and the agent goes on
        assert (agent.status().answered, agent.status().refused) == (1, 1)


def test_there_is_no_call_for_data(socket: Path, site: Site) -> None:
    questions = {DESCRIBE, TRAIN, STATISTICS, MEAN, COVARIANCE, SUMS, LABELS, EVALUATE}
    assert set(CALL_OF) == questions | {KEYS, SHARES, CONFIRM, REVEAL, BACKBONE}
    assert len(CALL_OF) == sum(map(len, CALLS.values()))
    with serving(site, socket):
        for call in ("Features", "Read", "Ledger", "Examples"):
            with pytest.raises(grpc.RpcError) as error:
                raw(socket, call, Task(run=1, kind=TRAIN))
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_nothing_of_an_exception_gets_out(socket: Path) -> None:
    for fault in ("broken", "unreadable"):
        toys = Toys(faults={"site-b": fault})
        with serving(toys.site("site-b"), socket):
            reply = ask(socket, TRAIN, content())
        assert (
            reply.error.reason == {"broken": "site.failed", "unreadable": "data.unreadable"}[fault]
        )
        assert CANARY not in str(reply)


def test_the_policy_of_the_site_holds_whatever_is_asked(socket: Path) -> None:
    site = Toys(simulated=False).site("site-b")
    with serving(site, socket):
        assert ask(socket, TRAIN, content()).error.reason == "policy.unprotected"
        assert ask(socket, EVALUATE, content()).error.reason == "policy.metrics"
        assert ask(socket, LABELS, content()).error.reason == "policy.metrics"
        assert ask(socket, TRAIN, content(toy_plan())).has_content()
        site.policy = SitePolicy(only_sealed=True)
        assert ask(socket, TRAIN, content(toy_plan())).error.reason == "secagg.required"


def test_a_repeated_message_is_answered_from_the_store(socket: Path, tmp_path: Path) -> None:
    """Also by an agent that was stopped in between and started again: charged once."""
    replies = []
    for _ in range(2):
        site = Toys(simulated=False).site("site-b")
        with Ledger.open(tmp_path / "ledger", durable=False) as site.ledger:
            site.dataset = RECORDS
            with serving(site, socket):
                replies += [ask(socket, TRAIN, content(toy_plan(), seed=None)) for _ in range(2)]
            assert [e.kind for e in site.ledger.entries()] == ["charge", "reply"]
    assert len(replies) == 4
    assert len({records_to_bytes(reply.content) for reply in replies}) == 1


def test_releases_are_counted_by_run(socket: Path, site: Site) -> None:
    """A ClientApp that comes anew with every message cannot make the site forget."""
    with serving(site, socket):
        plan = toy_plan(4)
        first = [ask(socket, TRAIN, content(plan)) for _ in range(3)]
        assert [r.has_content() for r in first] == [True, True, False]
        assert first[2].error.reason == "privacy.spent"
        assert ask(socket, TRAIN, content(plan), run=8).has_content()


def test_one_at_a_time_and_the_others_wait(socket: Path) -> None:
    site = Toys().site("site-b")
    go, load = threading.Event(), site.load
    site.load = lambda: (go.wait(30), load())[1]
    inside: list[int] = []
    most: list[int] = []
    with serving(site, socket) as agent:
        app = agent._app

        def watched(message: Message, context: Context) -> Message:
            inside.append(1)
            most.append(len(inside))
            try:
                return app(message, context)
            finally:
                inside.pop()

        agent._app = watched  # type: ignore[assignment]
        replies: list[Message] = []
        askers = [
            threading.Thread(target=lambda: replies.append(ask(socket, TRAIN, content())))
            for _ in range(3)
        ]
        for one in askers:
            one.start()
        until = time.monotonic() + 20
        seen = agent.status()
        while seen.waiting < 2 and time.monotonic() < until:
            time.sleep(0.02)
            seen = AgentClient(socket).status()
        assert (seen.busy, seen.waiting, seen.site) == (TRAIN, 2, "site-b")
        go.set()
        for one in askers:
            one.join()
        assert [r.has_content() for r in replies] == [True] * 3
        assert most == [1, 1, 1]
        assert agent.status().busy == ""


def test_the_health_service_is_the_standard_one(socket: Path, site: Site) -> None:
    with serving(site, socket), grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        told = stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
        assert told.status == health_pb2.HealthCheckResponse.SERVING


def test_where_no_agent_is_the_app_answers_a_code(socket: Path) -> None:
    assert ask(socket, TRAIN, content()).error.reason == "agent.unavailable"
    with pytest.raises(TransportError, match="No site agent answers"):
        AgentClient(socket).status(timeout=1)


def test_a_message_that_no_call_accepts_is_not_even_sent(socket: Path) -> None:
    assert ask(socket, "train.features", content()).error.reason == "message.invalid"


def test_one_agent_at_a_socket(socket: Path, site: Site, tmp_path: Path) -> None:
    with serving(site, socket):
        with (
            pytest.raises(TransportError, match="'site-b' answers at") as error,
            serving(site, socket),
        ):
            pass
        assert error.value.code == "agent.running"
        assert ask(socket, TRAIN, content()).has_content()
    (tmp_path / "file").write_text("not mine")
    with pytest.raises(CacheError, match="is in the way"), serving(site, tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "not mine"
    with pytest.raises(TransportError, match="longer than"), serving(site, Path("/" + "x" * 120)):
        pass
    with pytest.raises(CacheError, match="cannot be made"), serving(site, tmp_path / "no" / "a"):
        pass


def start(socket: Path, ledger: Path) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(here / "agent_site.py"), str(socket), str(ledger)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "serving"
    return process


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_agent_leaves_a_socket_that_the_next_one_takes(
    socket: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    processes.append(start(socket, tmp_path / "ledger"))
    first = ask(socket, TRAIN, content(toy_plan(), seed=None))
    processes[0].kill()
    processes[0].wait()
    assert socket.exists()
    assert ask(socket, TRAIN, content()).error.reason == "agent.unavailable"
    processes.append(start(socket, tmp_path / "ledger"))
    again = ask(socket, TRAIN, content(toy_plan(), seed=None))
    assert records_to_bytes(again.content) == records_to_bytes(first.content)
    processes[1].send_signal(signal.SIGTERM)
    assert processes[1].wait(20) == 0
    assert not socket.exists()


def test_the_thin_app_imports_nothing_that_could_read_data() -> None:
    code = (
        "import sys, fedtl.agent.client; "
        "print([m for m in ('torch', 'timm', 'opacus', 'onnxruntime', 'PIL', 'fedtl.data',"
        " 'fedtl.features') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_oversized_message_is_refused_by_the_agent(socket: Path, site: Site) -> None:
    with serving(site, socket):
        with pytest.raises(grpc.RpcError) as error:
            raw(socket, "Train", Task(run=7, kind=TRAIN, content=bytes(MOST_BYTES)))
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        wide = content()
        wide["more"] = ConfigRecord({"bytes": bytes(MOST_BYTES)})
        assert ask(socket, TRAIN, wide).error.reason == "message.too-large"
        assert ask(socket, TRAIN, content()).has_content()
