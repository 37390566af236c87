"""In a simulation every site has a ledger in the run folder, and a resumed run continues it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import recipe, run, stopped

from fedtl.errors import CacheError, FedtlError
from fedtl.launch.ledgers import ledger_file, ledgers_in
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.ledger import Ledger


def told(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the ledgers of a run say, times left out."""
    found = {}
    for site, file in ledgers_in(folder).items():
        with Ledger.open(file, read_only=True) as ledger:
            ledger.verify()
            found[site] = [(e.kind, e.request, e.dataset, e.event) for e in ledger.entries()]
    return found


@pytest.mark.parametrize("via", ["local", "stacked"])
def test_the_ledgers_say_what_the_report_says(tmp_path: Path, via: str) -> None:
    chosen = recipe(transport__via=via, train__rounds=3)
    finished = run(tmp_path, chosen)
    assert set(told(tmp_path)) == {s.name for s in finished.result.sites}
    for site in finished.result.sites:
        with Ledger.open(ledger_file(tmp_path, site.name), read_only=True) as ledger:
            (data,) = ledger.datasets()
            assert len(ledger.entries()) == 3
            assert (data.unit, data.units) == ("example", site.train)
            spent = epsilon_of(ledger.spend(data), chosen.privacy.delta)
        assert spent == pytest.approx(site.epsilon, rel=1e-9)


@pytest.mark.parametrize("name", ["fedavg", "fed3r"])
def test_a_resumed_run_continues_its_ledgers(tmp_path: Path, name: str) -> None:
    """Also where the last round was charged and its checkpoint never written: once is once."""
    chosen = recipe(train__rounds=4, strategy__name=name)
    whole = run(tmp_path / "whole", chosen)
    part = tmp_path / "part"
    stopped(part, chosen, 1)
    if name == "fedavg":
        kept = {file: file.read_bytes() for file in (part / "checkpoint").iterdir()}
        stopped(part, chosen, 2)
        for file, content in kept.items():
            file.write_bytes(content)
    resumed = run(part, chosen)
    for key, values in whole.head.items():
        np.testing.assert_array_equal(resumed.head[key], values)
    assert told(part) == told(tmp_path / "whole")


def test_lost_replies_are_in_the_ledger(tmp_path: Path) -> None:
    finished = run(tmp_path, recipe(transport__dropout=0.4, train__rounds=4))
    assert any(s.failures for s in finished.result.sites)
    assert all(len(entries) == 4 for entries in told(tmp_path).values())


def test_a_run_whose_ledger_is_gone_is_not_resumed(tmp_path: Path) -> None:
    chosen = recipe(train__rounds=3)
    stopped(tmp_path, chosen, 1)
    next(iter(ledgers_in(tmp_path).values())).unlink()
    with pytest.raises(CacheError, match="is missing, but") as error:
        run(tmp_path, chosen)
    assert error.value.code == "ledger.missing"


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (lambda data: data.replace(b"gaussian", b"gaussiam"), "ledger.broken"),
        (lambda data: data[: len(data) // 2], "ledger.damaged"),
        (lambda data: b"", "ledger.damaged"),
    ],
)
def test_a_run_with_a_forged_ledger_is_not_resumed(tmp_path: Path, forge: Any, code: str) -> None:
    chosen = recipe(train__rounds=2)
    stopped(tmp_path, chosen, 1)
    file = list(ledgers_in(tmp_path).values())[-1]
    file.write_bytes(forge(file.read_bytes()))
    with pytest.raises(FedtlError) as error:
        run(tmp_path, chosen)
    assert error.value.code == code
    assert error.value.next_step


def test_runs_without_privacy_have_no_ledgers(tmp_path: Path) -> None:
    run(tmp_path, recipe(privacy__enabled=False))
    with pytest.raises(CacheError, match="no ledger in"):
        ledgers_in(tmp_path)


def test_many_sites_do_not_run_out_of_file_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(partition__sites=5, partition__kind="iid")
    held = run(tmp_path / "held", chosen)
    monkeypatch.setattr("fedtl.launch.federation.MOST_HELD", 1)
    seen: list[int] = []

    def count(phase: str, done: int, total: int) -> None:
        open_files = [Path("/proc/self/fd", fd.name) for fd in Path("/proc/self/fd").iterdir()]
        seen.append(sum("ledger.sqlite" in str(f.resolve()) for f in open_files))

    let_go = run(tmp_path / "free", chosen, progress=count)
    assert max(seen) == 0
    np.testing.assert_array_equal(held.head["weight"], let_go.head["weight"])
    assert told(tmp_path / "free") == told(tmp_path / "held")


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "x" * 300, "straße 5", "a\nb"])
def test_any_site_name_has_a_folder_of_its_own_inside_the_run(tmp_path: Path, name: str) -> None:
    file = ledger_file(tmp_path, name)
    assert file.parent.parent == tmp_path / "sites"
    assert file.resolve() == file
    Ledger.open(file, durable=False).close()
    found = ledgers_in(tmp_path)
    assert list(found.values()) == [file]
    assert list(found) == [name] or len(name) > 200
    assert ledgers_in(file.parent).keys() == ledgers_in(file).keys() == found.keys()


def test_the_report_of_a_run_holds_no_digest_of_a_ledger(tmp_path: Path) -> None:
    """Ledgers stay at the sites: the server's files know nothing of their records."""
    run(tmp_path)
    (entries, *_) = told(tmp_path).values()
    assert entries[0][2][:16] not in json.dumps((tmp_path / "report.json").read_text())
