"""Checkpoints: what is read is what was written, and what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fedtl.errors import CacheError
from fedtl.rounds.checkpoint import load, save
from fedtl.rounds.run import State
from fedtl.strategies import make_strategy
from fedtl.types import Arrays

HEAD: Arrays = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
FILE = "state.safetensors"


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


def test_a_checkpoint_holds_no_pickle_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for round_ in (1, 2):
        save(tmp_path, State(round_, HEAD), make_strategy("fedadam"))
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert set(load_file(tmp_path / FILE)) == {"head/weight"}
    state = load(tmp_path, make_strategy("fedadam"))
    assert state is not None
    assert state.round == 2
