"""What Prometheus is told: nothing of a sender's making, no number of images, no port of others."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
from machines import free_port
from prometheus_client import Metric

from fedtl.agent.agent_pb2 import State
from fedtl.agent.server import Answered
from fedtl.errors import ConfigError
from fedtl.launch.coordinator.config import read_server
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.metrics import ServerMetrics
from fedtl.launch.metrics import check_free, exposed
from fedtl.launch.site_metrics import SiteMetrics, Tally
from fedtl.privacy.ledger import Ledger
from fedtl.site.config import SiteFolder, read_site
from fedtl.site.folder import make_site


@pytest.fixture
def site(tmp_path: Path) -> SiteFolder:
    make_site(tmp_path / "site", name="north", source="digits")
    return read_site(tmp_path / "site")


def values(metrics: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for one in metrics for s in one.samples}


def told(
    site: SiteFolder, tally: Tally | None = None, **state: object
) -> dict[tuple[str, ...], float]:
    status = State(site="north", **{"state": "preparing", **state})
    return values(SiteMetrics(site, tally or Tally(), lambda: status).collect())


def test_a_type_that_its_sender_made_up_is_no_label() -> None:
    tally = Tally()
    for kind, code in (("train", ""), ("train", "privacy.budget"), ("x" * 50, "message.invalid")):
        tally.heard(Answered(0.0, kind, 1, code, 0.5))
    found = values(tally.metrics())
    assert found["fedtl_site_messages_total", "train", "ok"] == 1
    assert found["fedtl_site_messages_total", "train", "privacy.budget"] == 1
    assert found["fedtl_site_messages_total", "unknown", "message.invalid"] == 1
    assert found["fedtl_site_answer_seconds_sum", "train"] == 1.0


def test_how_far_a_preparation_is_tells_no_number_of_images(site: SiteFolder) -> None:
    found = told(site, phase="features", done=1234, total=3701)
    assert found["fedtl_site_preparation_ratio",] == 0.33
    assert not {1234, 3701} & set(found.values())


def test_a_site_without_a_ledger_has_all_of_its_budget_left(site: SiteFolder) -> None:
    found = told(site)
    assert found["fedtl_site_ledger_whole",] == 1
    assert found["fedtl_site_epsilon_left",] == 8.0


def test_a_ledger_that_is_damaged_raises_an_alarm_and_no_error(site: SiteFolder) -> None:
    with Ledger.open(site.folder / "ledger.sqlite"):
        pass
    (site.folder / "ledger.sqlite").write_bytes(b"no database" * 1000)
    found = told(site)
    assert found["fedtl_site_ledger_whole",] == 0
    assert ("fedtl_site_epsilon_spent",) not in found


def test_failures_are_counted_by_site_and_code_over_the_rounds(tmp_path: Path) -> None:
    make_coordinator(tmp_path / "c", address="localhost:9443", name="trial")
    run = tmp_path / "c" / "runs" / "a-run"
    (run / "checkpoint").mkdir(parents=True)
    rounds = [{"failures": {"north": "site.lost"}}, {"failures": {}}] * 2
    (run / "checkpoint" / "history.jsonl").write_text("\n".join(map(json.dumps, rounds)))
    sites = [{"name": "north", "down": 7, "up": 5, "detail": "site.lost"}]
    progress = {"state": "running", "round": 4, "rounds": 9, "updated": 1.0, "sites": sites}
    (run / "progress.json").write_text(json.dumps(progress))
    found = values(ServerMetrics(read_server(tmp_path / "c")).collect())
    assert found["fedtl_run_site_failures_total", "a-run", "north", "site.lost"] == 2
    assert found["fedtl_run_site_failing", "a-run", "north", "site.lost"] == 1
    assert found["fedtl_run_bytes_total", "a-run", "north", "up"] == 5
    assert found["fedtl_service_up", "superlink"] == 0
    assert found["fedtl_server_sites_enrolled",] == 0


def test_metrics_are_served_where_they_were_asked_for_and_gone_afterwards(site: SiteFolder) -> None:
    port = free_port()
    metrics = SiteMetrics(site, Tally(), lambda: State(site="north", state="ready"))
    with exposed(metrics, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b'fedtl_site_state{state="ready"} 1.0' in answer.read()
        with pytest.raises(ConfigError, match="cannot be used"), exposed(metrics, port):
            pass
    with exposed(metrics, 0), socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_that_another_program_has_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(ConfigError, match="metrics") as caught:
            check_free(other.getsockname()[1], tmp_path)
        assert caught.value.code == "metrics.port"
    check_free(0, tmp_path)
