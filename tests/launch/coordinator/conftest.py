"""One coordinator for all tests here, and another machine: a network namespace of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elsewhere import Elsewhere, Federation
from machines import another_machine, free_port

from fedtl.launch import services
from fedtl.launch.coordinator.config import read_server
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.up import up

APP = """
[project]
name = "probe"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0", "a-package-that-is-nowhere"]
[tool.flwr.app]
publisher = "fedtl"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "probe:app"
clientapp = "probe:client"
[tool.flwr.app.config]
text = ""
wait = 0
megabytes = 0
"""
PROBE = """
import os, time
from pathlib import Path
import numpy as np
from flwr.app import ArrayRecord, Array, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

app = ServerApp()
client = ClientApp()

@app.main()
def main(grid, context):
    asked = context.run_config
    time.sleep(asked["wait"])
    said = asked["text"]
    if asked["megabytes"]:
        said = str(echoed(grid, asked["megabytes"]))
    (Path(os.environ["FEDTL_COORDINATOR"]) / "runs" / "said").write_text(said)

def echoed(grid, megabytes):
    (node,) = grid.get_node_ids()
    sent = np.random.default_rng(0).integers(0, 256, megabytes << 20, dtype=np.uint8)
    content = RecordDict({"a": ArrayRecord({"x": Array(sent)})})
    began = time.monotonic()
    (reply,) = grid.send_and_receive(
        [Message(content, dst_node_id=node, message_type="query")], timeout=100
    )
    same = np.array_equal(reply.content["a"]["x"].numpy(), sent)
    return f"{same} {time.monotonic() - began:.1f}"

@client.query()
def query(message, context):
    return Message(message.content, reply_to=message)
"""


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a Flower app whose server writes a file into the coordinator's folder."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "pyproject.toml").write_text(APP)
    (folder / "probe.py").write_text(PROBE)
    (folder / "LICENSE").write_text("none")
    return folder


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Elsewhere]:
    """Make a network namespace with one cable to here."""
    with another_machine("fedtl", 213) as machine:
        yield Elsewhere(machine)


@pytest.fixture(scope="session")
def federation(elsewhere: Elsewhere) -> Iterator[Federation]:
    """Start a coordinator's server, reached from elsewhere."""
    with tempfile.TemporaryDirectory(prefix="fedtl") as above:
        folder = Path(above) / "coordinator"
        make_coordinator(folder, address=f"{elsewhere.here}:{free_port()}", name="trial")
        try:
            up(folder)
            yield Federation(read_server(folder), elsewhere, Path(above))
        finally:
            services.stop(folder)


@pytest.fixture
def short() -> Iterator[Path]:
    """Return an empty folder on a path short enough for sockets; a server in c is stopped."""
    with tempfile.TemporaryDirectory(prefix="fedtl") as folder:
        try:
            yield Path(folder)
        finally:
            services.stop(Path(folder) / "c")
