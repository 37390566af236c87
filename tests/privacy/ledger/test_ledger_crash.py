"""Killed at any step, or raced by another process, the ledger never counts too little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import DATA, EVENT, request

from fedtl.errors import FedtlError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import GaussianEvent
from fedtl.privacy.ledger import Budget, Ledger

HERE = str(Path(__file__).parent)

PROTOCOL = """
import os, signal, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import DATA, EVENT, request
from fedtl.privacy.ledger import Ledger

connect = sqlite3.connect

def release(folder, victim):
    steps = 0
    def step(*_):
        nonlocal steps
        steps += 1
        if steps == victim:
            os.kill(os.getpid(), signal.SIGKILL)
    def watched(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(step)  # called before every statement
        return connection
    sqlite3.connect = watched
    with Ledger.open(folder / "l") as ledger:
        step()
        if (reply := ledger.reply_of(request(7))) is None:
            step()
            ledger.charge(request(7), DATA, EVENT)
            (folder / "charged").write_bytes(b"")
            step()
            reply = os.urandom(8)
            step()
            reply = ledger.keep_reply(request(7), reply)
            step()
        with (folder / "sent").open("ab") as file:
            file.write(reply)
        step()
    step()
    return steps

def child(folder, victim):
    pid = os.fork()
    if pid == 0:
        release(folder, victim)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

base = Path(sys.argv[1])
def prepared(name):
    folder = base / name
    folder.mkdir()
    if sys.argv[3] == "old":
        with Ledger.open(folder / "l") as ledger:
            ledger.charge(request(1), DATA, EVENT)
    return folder

victim = 0
while True:
    victim += 1
    status = child(prepared(f"{victim}"), victim)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
print(victim - 1)
"""


@pytest.mark.parametrize("state", ["new", "old"])
def test_killed_at_any_step_it_never_counts_too_little(tmp_path: Path, state: str) -> None:
    """Before every statement to the file and between all steps of the protocol."""
    done = subprocess.run(
        [sys.executable, "-c", PROTOCOL, str(tmp_path), HERE, state],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    victims = int(done.stdout)
    assert victims > 25
    seen = set()
    for victim in range(1, victims + 1):
        folder = tmp_path / str(victim)
        promised = (folder / "charged").exists()
        sent = (folder / "sent").read_bytes() if (folder / "sent").exists() else b""
        with Ledger.open(folder / "l") as ledger:
            ledger.verify()
            charges = [e for e in ledger.entries() if e.request == request(7)]
            paid = sum(e.kind == "charge" for e in charges)
            kept = ledger.reply_of(request(7))
            assert paid in (0, 1)
            assert paid == 1 or not promised
            assert kept == sent or not sent  # what has left is what a repeat will get
            seen.add((paid, kept is not None, bool(sent)))
            # the repeat goes on from there: one charge, one reply
            ledger.charge(request(7), DATA, EVENT)
            assert ledger.keep_reply(request(7), b"repeated") == (kept or b"repeated")
            assert ledger.spend(DATA) == GaussianEvent(4.0, 1 + (state == "old"))
    nothing, charged, answered = (0, False, False), (1, False, False), (1, True, False)
    assert seen == {nothing, charged, answered, (1, True, True)}


RACE = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import DATA, EVENT, request
from fedtl.errors import PrivacyError
from fedtl.privacy.ledger import Budget, Ledger

path, own, epsilon = Path(sys.argv[1]), int(sys.argv[3]), float(sys.argv[4])
accepted, replies = [], []
print("ready", flush=True)
sys.stdin.readline()
with Ledger.open(path, timeout=60) as ledger:
    for at in range(25):
        for round_ in (at, 1000 * own + at):
            try:
                ledger.charge(request(round_), DATA, EVENT, budget=Budget(epsilon, 1e-5))
            except PrivacyError as error:
                assert error.code == "privacy.budget", error
                continue
            accepted.append(round_)
            reply = ledger.keep_reply(request(round_), f"{own}".encode())
            replies.append([round_, reply.decode()])
print(json.dumps([accepted, replies]))
"""


def test_processes_that_charge_at_once_serialise(tmp_path: Path) -> None:
    """Together they get the budget once, and one reply to a request they all got."""
    path, most = tmp_path / "l", 60
    epsilon = epsilon_of(GaussianEvent(4.0, most), 1e-5)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(path), HERE, str(own), str(epsilon)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in (1, 2, 3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        said.append(json.loads(process.communicate(timeout=120)[0]))
        assert process.returncode == 0
    with Ledger.open(path) as ledger:
        ledger.verify()
        charged = [e.request.round for e in ledger.entries() if e.kind == "charge"]
    assert len(charged) == len(set(charged)) == most
    assert set(charged) == {round_ for accepted, _ in said for round_ in accepted}
    answers: dict[int, set[str]] = {}
    for _, replies in said:
        for round_, reply in replies:
            answers.setdefault(round_, set()).add(reply)
    assert all(len(different) == 1 for different in answers.values())
    assert list(tmp_path.iterdir()) == [path]


def test_threads_share_a_ledger(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    budget = Budget(epsilon_of(GaussianEvent(4.0, 20), 1e-5), 1e-5)

    def charge(round_: int) -> bool:
        try:
            return not ledger.charge(request(round_ // 2), DATA, EVENT, budget=budget).repeated
        except FedtlError:
            return False

    with Ledger.open(tmp_path / "l") as ledger, ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(charge, range(60))) == 20
        assert ledger.verify().entries == 20
