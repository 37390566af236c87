"""A federation that is deployed as the files say: it works, it can be watched, and keeps quiet."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from deployed import CANARY, Deployed, wait
from prometheus_client.parser import text_string_to_metric_families

from fedtl.cli import main
from fedtl.privacy.ledger import Ledger
from fedtl.report.result import RunResult


def scraped(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def run_of(deployed: Deployed) -> Path:
    (run,) = (deployed.coordinator / "runs").iterdir()
    return run


def test_units_and_containers_make_a_federation_that_finishes_its_run(deployed: Deployed) -> None:
    assert "2 of 2 rounds" in deployed.said
    result = RunResult.from_json((run_of(deployed) / "report.json").read_text("utf-8"))
    assert {site.name for site in result.sites} == {"north", "south"}


def test_the_supernode_comes_through_the_proxy_of_its_house(deployed: Deployed) -> None:
    address = [line for line in (deployed.coordinator / "server.toml").read_text().splitlines()]
    (where,) = [line.split('"')[1] for line in address if line.startswith("address")]
    assert f"CONNECT {where}" in deployed.proxy.asked


def test_the_supernode_is_another_user_than_the_agent_and_reads_no_data(deployed: Deployed) -> None:
    import psutil

    from fedtl.launch import services

    users = {
        state.name: psutil.Process(state.pid).username()
        for state in services.status(deployed.site("north"))
    }
    assert users == {"agent": "root", "supernode": "nobody"}


def test_nothing_of_a_sites_data_is_in_any_file_of_the_server(deployed: Deployed) -> None:
    files = [path for path in (deployed.place / "server").rglob("*") if path.is_file()]
    assert {"superlink.log", "nginx.log", "services.log"} <= {path.name for path in files}
    told = [path for path in files if CANARY.encode() in path.read_bytes()]
    assert told == []
    # the same search finds them where they are read
    assert CANARY.encode() in (deployed.place / "north-images" / "all.csv").read_bytes()


def test_the_agents_log_has_a_line_of_json_for_every_answer(deployed: Deployed) -> None:
    lines = (deployed.site("south") / "logs" / "agent.log").read_text().splitlines()
    answers = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"time", "type", "run", "code", "seconds"} == set(answers[0])
    assert {"query.describe", "train"} <= {answer["type"] for answer in answers}
    assert all(answer["code"] == "" for answer in answers)


def test_a_site_tells_prometheus_what_it_did_and_what_is_left(deployed: Deployed) -> None:
    told = scraped(deployed.metrics["north"])
    assert told["fedtl_site_info"] == [({"site": "north", "version": _version()}, 1.0)]
    assert told["fedtl_site_state"] == [({"state": "ready"}, 1.0)]
    assert told["fedtl_site_preparation_ratio"][0][1] == 1.0
    answered = {
        (labels["type"], labels["code"]): n for labels, n in told["fedtl_site_messages_total"]
    }
    assert answered["train", "ok"] == 2
    took = {labels["type"]: n for labels, n in told["fedtl_site_answer_seconds_sum"]}
    assert took["train"] > 0
    with Ledger.open(deployed.site("north") / "ledger.sqlite", read_only=True) as ledger:
        assert told["fedtl_site_ledger_entries"][0][1] == len(ledger.entries()) > 0
    spent, left = (told[f"fedtl_site_epsilon_{name}"][0][1] for name in ("spent", "left"))
    assert 0 < spent <= 8.0
    assert spent + left == pytest.approx(8.0)


def test_the_server_tells_prometheus_of_sites_and_run(deployed: Deployed) -> None:
    told = scraped(deployed.metrics["server"])
    up = {labels["service"]: n for labels, n in told["fedtl_service_up"]}
    assert up == {"superlink": 1, "nginx": 1, "metrics": 1}
    assert told["fedtl_server_sites_enrolled"][0][1] == 2
    online = {labels["site"]: n for labels, n in told["fedtl_server_site_online"]}
    assert online == {"north": 1, "south": 1}
    run = {"run": run_of(deployed).name}
    assert told["fedtl_run_state"] == [({**run, "state": "finished"}, 1.0)]
    assert told["fedtl_run_round"] == [(run, 2.0)]
    n_bytes = {(x["site"], x["direction"]): n for x, n in told["fedtl_run_bytes_total"]}
    assert all(n_bytes[site, way] > 0 for site in ("north", "south") for way in ("up", "down"))


def test_metrics_are_for_the_machine_itself_only(deployed: Deployed) -> None:
    for port in (deployed.metrics["north"], deployed.metrics["server"]):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.2:{port}/metrics", timeout=5)


def test_the_doctor_finds_both_sides_healthy(
    deployed: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(["--server", str(deployed.coordinator)], capsys)
    for name in ("superlink", "nginx", "certificate", "operators' door", "superlink's port"):
        assert found[name]["state"] == "ok", found[name]
    assert found["server"]["what"].endswith("with a certificate that is accepted")
    # from outside its sandbox the site's paths are others, so it is asked from within
    south = examined(["--site", str(deployed.site("south"))], capsys)
    assert south["agent"]["state"] == south["connection"]["state"] == "ok"
    assert south["agent's version"]["state"] == "ok"


def examined(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    main(["doctor", "--json", *arguments])
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_sigterm_ends_everything_cleanly(deployed: Deployed) -> None:
    """The last test here, because nothing runs afterwards."""
    import psutil
    from sandbox import end

    for name in ("north", "south", "server"):
        assert end(deployed.processes[name]) == 0, name
    wait(
        lambda: not _left(psutil),
        Deployed(deployed.place, {}, deployed.proxy, deployed.server),
        "the end",
    )
    assert list(deployed.place.rglob("*.sock")) == []


def _left(psutil: Any) -> list[int]:
    from contextlib import suppress

    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("FEDTL_SERVICES") in MARKS and process.status() != "zombie":
                left.append(process.pid)
    return left


MARKS = ("/var/lib/fedtl/coordinator", "/var/lib/fedtl/site", "/site")


def _version() -> str:
    from fedtl import __version__

    return __version__
