"""The messages in Python are those of the `.proto` that is read by people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[2] / "fedtl" / "agent"


@pytest.mark.parametrize("name", ["agent_pb2.py", "agent_pb2.pyi"])
def test_the_generated_code_is_up_to_date(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(AGENT)]
    command += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(AGENT / "agent.proto")]
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / name).read_text() == (AGENT / name).read_text(), "run `make proto`"
