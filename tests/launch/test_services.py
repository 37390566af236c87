"""Services of a folder: they come up, stay up, and go without leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from machines import eventually

from fedtl.errors import ConfigError
from fedtl.launch import services
from fedtl.launch.logs import last_lines, new_lines
from fedtl.launch.services import Service, log_file, start, status, stop

SLEEPER = ("sleep", "600")
PRINTER = "import os, time; print(os.environ['VALUE'], os.getcwd(), flush=True); time.sleep(600)"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a state folder with a name that no configuration format likes, on a short path."""
    with tempfile.TemporaryDirectory(prefix="fedtl") as above:
        made = Path(above) / "50% ;a #b 'c' \"d\" %(here)s"
        made.mkdir()
        try:
            yield made
        finally:
            stop(made)


def of(folder: Path) -> list[psutil.Process]:
    return services._processes(folder)


def test_values_and_paths_of_any_spelling_reach_a_service(folder: Path) -> None:
    value = "100% ;no #comment 'one' \"two\" \\ $HOME %(here)s,x=y"
    start(folder, [Service("printer", (sys.executable, "-c", PRINTER), {"VALUE": value})])
    log = log_file(folder, "printer")
    assert eventually(lambda: last_lines(log, 1))
    assert last_lines(log, 1) == [f"{value} {folder}"]
    assert (folder / "services.conf").stat().st_mode & 0o777 == 0o600
    assert log.stat().st_mode & 0o777 == 0o600
    assert (folder / "services.sock").stat().st_mode & 0o777 == 0o600


def test_a_service_that_cannot_start_is_told_at_once_and_nothing_stays_half_up(
    folder: Path,
) -> None:
    bad = "print('the certificate has expired'); raise SystemExit(1)"
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"'bad' ended at once.*the certificate has expired"):
        start(folder, [Service("good", SLEEPER), Service("bad", (sys.executable, "-c", bad))])
    assert time.monotonic() - began < 10
    assert status(folder) == []
    assert of(folder) == []
    assert not (folder / "services.sock").exists()


def test_a_service_that_ends_after_a_while_before_it_is_ready_is_told(folder: Path) -> None:
    late = "import time; time.sleep(1.5); print('no such address'); raise SystemExit(1)"
    service = Service("late", (sys.executable, "-c", late), ready=lambda: False)
    with pytest.raises(ConfigError, match=r"'late' ended at once.*no such address"):
        start(folder, [service], patience_seconds=30)


def test_a_service_that_is_never_ready_is_told(folder: Path) -> None:
    slow = Service("slow", SLEEPER, ready=lambda: False)
    with pytest.raises(ConfigError, match="'slow' was not ready after 2 seconds"):
        start(folder, [slow], patience_seconds=2)
    assert of(folder) == []


def test_a_killed_service_comes_back(folder: Path) -> None:
    start(folder, [Service("sleeper", SLEEPER)])
    (before,) = status(folder)
    assert (before.name, before.state) == ("sleeper", "running")
    os.kill(before.pid, signal.SIGKILL)
    assert eventually(
        lambda: [s.state for s in status(folder) if s.pid != before.pid] == ["running"]
    )


def test_a_second_start_says_that_it_runs_already(folder: Path) -> None:
    start(folder, [Service("sleeper", SLEEPER)])
    with pytest.raises(ConfigError, match="running already") as caught:
        start(folder, [Service("sleeper", SLEEPER)])
    assert caught.value.code == "services.running"
    assert [s.state for s in status(folder)] == ["running"]


def test_stop_leaves_no_process_socket_or_pid_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_LONGEST_STOP_SECONDS", 3.0)
    # one that ignores SIGTERM, with a child in a session of its own that does so too
    deaf = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen(['sleep', '600'], start_new_session=True); print('up', flush=True); "
        "time.sleep(600)"
    )
    start(folder, [Service("deaf", (sys.executable, "-c", deaf), stop_seconds=1)])
    assert eventually(lambda: last_lines(log_file(folder, "deaf"), 1) == ["up"])
    assert len(of(folder)) == 3
    assert stop(folder)
    assert of(folder) == []
    assert sorted(p.name for p in folder.iterdir()) == ["logs", "services.conf"]
    assert not stop(folder)


def test_after_supervisord_was_killed_services_end_and_start_again(folder: Path) -> None:
    start(folder, [Service("sleeper", SLEEPER)])
    keeper = int((folder / "services.pid").read_text())
    os.kill(keeper, signal.SIGKILL)
    assert eventually(lambda: of(folder) == [])
    assert (folder / "services.sock").exists()  # stale
    assert status(folder) == []
    start(folder, [Service("sleeper", SLEEPER)])
    assert [s.state for s in status(folder)] == ["running"]


def test_in_the_foreground_sigterm_stops_everything(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fedtl.launch.services import Service, start; "
        "start(Path(sys.argv[1]), [Service('sleeper', ('sleep', '600'))], foreground=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert eventually(lambda: [s.state for s in status(folder)] == ["running"])
        assert int((folder / "services.pid").read_text()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert of(folder) == []
    assert sorted(p.name for p in folder.iterdir()) == ["logs", "services.conf"]


@pytest.mark.parametrize("name", ["x" * 100, "two\nlines"])
def test_a_folder_that_no_socket_or_command_can_have_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(ConfigError) as caught:
        start(folder, [Service("sleeper", ("sleep", "600", str(folder)))])
    assert caught.value.code == "services.path"
    assert of(folder) == []


def test_a_followed_log_goes_on_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("old\n")
    lines = new_lines(log)

    def append() -> None:
        with log.open("a") as file:
            file.write("appended\n")

    def rotate() -> None:
        log.rename(tmp_path / "x.log.1")
        log.write_text("new file\n")

    appended, rotated = threading.Timer(0.5, append), threading.Timer(1.2, rotate)
    for timer in (appended, rotated):
        timer.start()
    assert [next(lines), next(lines)] == ["appended\n", "new file\n"]
    lines.close()  # type: ignore[attr-defined]
    for timer in (appended, rotated):
        timer.join()
