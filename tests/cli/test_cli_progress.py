import io
import logging
import re
import signal
import sys
import time

import pytest
from rich.console import Console

from fedtl.cli.progress import SECONDS_BETWEEN_LINES, progress
from fedtl.cli.screen import stoppable, warnings_shown


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_file_gets_one_line_at_the_end_of_a_quick_phase():
    console = _console(terminal=False)
    with progress(console) as show:
        for done in range(1001):
            show("features", done, 1000)
        show("features", 1000, 1000)
        show("rounds", 1, 2)
    assert _text(console) == "features: 1,000 of 1,000\n"
    assert show.phases == {"features": (1000, 1000), "rounds": (1, 2)}


def test_a_log_file_hears_of_a_slow_phase_before_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedtl.cli.progress.SECONDS_BETWEEN_LINES", 0.05)
    assert SECONDS_BETWEEN_LINES == 2.0
    console = _console(terminal=False)
    with progress(console) as show:
        for done in range(1, 4):
            time.sleep(0.06)
            show("reading", done, 0)
    assert _text(console) == "reading: 1\nreading: 2\nreading: 3\n"


def test_a_terminal_gets_bars():
    console = _console(terminal=True)
    with progress(console) as show:
        show("features", 1, 4)
        show("features", 4, 4)
    assert "features" in _text(console)
    assert "4/4" in _text(console)


def test_quiet_shows_nothing():
    console = _console(terminal=True)
    with progress(console, quiet=True) as show:
        show("features", 1, 1)
    assert _text(console) == ""


def test_a_warning_is_one_clean_line_and_is_not_repeated():
    console, log = _console(terminal=False), logging.getLogger("fedtl.site")
    with warnings_shown(console):
        for _ in range(3):
            log.warning("%s: %s", "site-\x1b[2J", "two\nlines " + "long " * 40)
        log.info("not shown")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("site-02: unexpected failure")
    first, second = _text(console).splitlines()
    assert first.startswith("Warning: site-\N{REPLACEMENT CHARACTER}[2J: two lines long")
    said, _, place = second.partition(" (")
    assert said == "Warning: site-02: unexpected failure ValueError: broken"
    assert re.fullmatch(r"test_cli_progress\.py, line \d+\)", place)
    before = _text(console)
    log.debug("after")
    assert _text(console) == before


def test_sigterm_stops_like_ctrl_c_and_only_inside():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_that_a_library_turned_into_an_error_is_an_interrupt():
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    with pytest.raises(KeyboardInterrupt), stoppable():
        work()
    with pytest.raises(ImportError), stoppable():
        raise ImportError


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_meets_a_finaliser_is_not_lost():
    class Held:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # where Python drops what is raised

    before = sys.unraisablehook

    def work() -> None:
        Held()
        time.sleep(5)
        pytest.fail("the interrupt was lost")

    with pytest.raises(KeyboardInterrupt), stoppable():
        work()
    assert sys.unraisablehook is before


def test_what_else_is_dropped_is_shown_as_ever(monkeypatch: pytest.MonkeyPatch):
    class Held:
        def __del__(self) -> None:
            raise ValueError("broken")

    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: shown.append(dropped.exc_type))
    with stoppable():
        Held()
    assert shown == [ValueError]
