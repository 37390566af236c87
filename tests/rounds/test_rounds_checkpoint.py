"""Checkpoints: what is read is what was written, and what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fedtl.errors import CacheError, StrategyError
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.run import State
from fedtl.strategies import make_strategy
from fedtl.transport.asynchronous import InFlight, Work
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack

HEAD: Arrays = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
FILE = "state.safetensors"
WHOLE = {"round": "1", "strategy": json.dumps({"dict": []})}


class Remembers(FedAvg):
    """Keeps whatever it is given, as anyone's own strategy might."""

    def __init__(self, memory: object = None) -> None:
        super().__init__()
        self.memory = memory


plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text()
)
memories = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(memories, st.integers(0, 10**6))
def test_plain_memory_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, memory: object, round_: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    save(folder, State(round_, HEAD), Remembers(memory))
    strategy = Remembers()
    state = load(folder, strategy)
    assert state is not None
    assert state.round == round_
    np.testing.assert_array_equal(state.head["weight"], HEAD["weight"])
    assert strategy.memory == memory
    assert type(strategy.memory) is type(memory)


def test_arrays_in_memory_keep_their_type_and_bits(tmp_path: Path) -> None:
    memory = {"m": [np.arange(3.0), np.float64(0.1)], 3: {"n": np.arange(4, dtype=np.int32)[::2]}}
    save(tmp_path, State(1, HEAD), Remembers(memory))
    strategy = Remembers()
    load(tmp_path, strategy)
    got = strategy.memory
    np.testing.assert_array_equal(got["m"][0], np.arange(3.0))  # type: ignore[index]
    assert got["m"][1] == 0.1  # type: ignore[index]
    np.testing.assert_array_equal(got[3]["n"], [0, 2])  # type: ignore[index]
    assert got[3]["n"].dtype == np.int32  # type: ignore[index]


def test_functions_stay_those_of_the_new_strategy(tmp_path: Path) -> None:
    save(tmp_path, State(1, HEAD), Remembers(print))
    strategy = Remembers("kept")
    load(tmp_path, strategy)
    assert strategy.memory == "kept"
    assert callable(strategy.train_metrics_aggr_fn)


def test_a_strategy_may_say_itself_what_it_remembers(tmp_path: Path) -> None:
    class Own(Remembers):
        def state_dict(self) -> dict[str, object]:
            return {"only": self.memory}

        def load_state_dict(self, state: dict[str, object]) -> None:
            self.memory = ("loaded", state["only"])

    save(tmp_path, State(1, HEAD), Own(5))
    strategy = Own()
    load(tmp_path, strategy)
    assert strategy.memory == ("loaded", 5)


def test_without_a_checkpoint_there_is_no_state(tmp_path: Path) -> None:
    assert load(tmp_path, make_strategy("fedavg")) is None


@pytest.mark.parametrize("keep", [0, 4, 20, 200, -1])
def test_a_cut_off_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    save(tmp_path, State(3, HEAD), make_strategy("fedadam"))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:keep])
    with pytest.raises(CacheError, match="is damaged") as error:
        load(tmp_path, make_strategy("fedadam"))
    assert error.value.next_step


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"round": "1"},
        {"round": "one", "strategy": '{"dict": []}'},
        {"round": "1", "strategy": "no json"},
        {"round": "1", "strategy": "[]"},
        {"round": "1", "strategy": '{"dict": [["m", {"tensor": "not there"}]]}'},
        {"round": "1", "strategy": '{"dict": [["m", 3]]}'},
        {"round": "1", "strategy": json.dumps({"dict": 3})},
        {"round": "1", "strategy": json.dumps({"plain": 3})},
        {**WHOLE, "in_flight": "no json"},
        {**WHOLE, "in_flight": json.dumps({"plain": 3})},
        {**WHOLE, "in_flight": json.dumps({"dict": [["now", {"plain": 0.0}]]})},
    ],
    ids=str,
)
def test_a_checkpoint_that_says_something_else_is_refused(
    tmp_path: Path, meta: dict[str, str]
) -> None:
    save_file({"head/weight": HEAD["weight"]}, tmp_path / FILE, metadata=meta)
    strategy = make_strategy("fedavg")
    before = dict(vars(strategy))
    with pytest.raises(CacheError):
        load(tmp_path, strategy)
    assert vars(strategy) == before


def test_what_sites_are_at_comes_back_as_it_was(tmp_path: Path) -> None:
    """What several were asked is written once; answers may be there, be failures, or be lost."""
    asked, other, told = (
        RecordDict({"arrays": pack({"weight": np.full(1000, n, np.float32)})}) for n in range(3)
    )
    works = {
        "a/b": Work("train", asked, 1.5, told),
        "a": Work("train", asked, 0.1, Error(code=1, reason="data.unreadable")),
        "c": Work("train.sums", other, 1 / 3),
    }
    flying = InFlight(2 / 3, works, {"a/b": 7, "a": 8, "c": 9})
    save(tmp_path, State(1, HEAD, flying), make_strategy("fedavg"))
    assert (tmp_path / FILE).stat().st_size < 4 * 4000
    state = load(tmp_path, make_strategy("fedavg"))
    assert state is not None
    found = state.in_flight
    assert (found.now, found.nodes) == (flying.now, flying.nodes)
    for site, work in works.items():
        got = found.works[site]
        assert (got.kind, got.done_at) == (work.kind, work.done_at)
        assert unpack(got.content["arrays"])["weight"][0] == (site == "c")  # type: ignore[arg-type]
    answer, failure, lost = (found.works[site].answer for site in works)
    assert isinstance(answer, RecordDict)
    assert unpack(answer["arrays"])["weight"][0] == 2  # type: ignore[arg-type]
    assert isinstance(failure, Error)
    assert (failure.code, failure.reason) == (1, "data.unreadable")
    assert lost is None


def test_a_checkpoint_of_an_older_version_has_nothing_in_flight(tmp_path: Path) -> None:
    save_file({"head/weight": HEAD["weight"]}, tmp_path / FILE, metadata=WHOLE)
    state = load(tmp_path, make_strategy("fedavg"))
    assert state is not None
    assert (state.round, state.in_flight.works) == (1, {})


def test_a_checkpoint_holds_no_pickle_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for round_ in (1, 2):
        save(tmp_path, State(round_, HEAD), make_strategy("fedadam"))
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert set(load_file(tmp_path / FILE)) == {"head/weight"}
    state = load(tmp_path, make_strategy("fedadam"))
    assert state is not None
    assert state.round == 2


class Keeps(FedAvg):
    """Says by itself what it remembers, and takes nothing back."""

    def __init__(self, kept: object) -> None:
        super().__init__()
        self.kept = kept

    def state_dict(self) -> object:
        return 1 / 0 if self.kept == "fails" else self.kept

    def load_state_dict(self, state: dict[str, object]) -> None:
        raise KeyError("momentum")


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        (3, "Keeps.state_dict returned 3, which is no dict"),
        ("fails", "Keeps.state_dict failed in round 1 at line"),
        ({"a": 1}, "Keeps.load_state_dict failed in round 1 at line"),
    ],
)
def test_a_strategy_that_cannot_be_saved_or_loaded_is_told_so(
    tmp_path: Path, kept: object, problem: str
) -> None:
    def saved_and_loaded() -> None:
        save(tmp_path, State(1, HEAD), Keeps(kept))
        load(tmp_path, Keeps(kept))

    with pytest.raises(StrategyError, match=problem) as error:
        saved_and_loaded()
    assert error.value.next_step
