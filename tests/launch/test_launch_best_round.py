"""Early stopping, the best round's head and rates of the server, in whole runs on real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import recipe, report, run, stopped

from fedtl.errors import RecipeError, StrategyError
from fedtl.launch.simulate import Finished
from fedtl.modules import load_module
from fedtl.recipe import Recipe

SHAKY: dict[str, Any] = {
    "privacy__epsilon": 1.0,
    "train__rounds": 8,
    "strategy__around": {"early_stopping": {"patience": 2}},
}
"""So much noise that accuracy goes up and down."""


def best(finished: Finished) -> int:
    return int(np.argmax([r.accuracy for r in finished.result.history])) + 1


def test_the_run_stops_and_its_result_is_the_best_round(tmp_path: Path) -> None:
    finished = run(tmp_path / "a", recipe(**SHAKY))
    result, rounds = finished.result, len(finished.result.history)
    assert rounds == best(finished) + 2 < 8
    assert result.status == "finished"
    assert result.accuracy == result.history[best(finished) - 1].accuracy
    assert f"of round {best(finished)}" in result.notes[0]
    assert f"after {rounds} of 8" in result.notes[0]
    shorter = {**SHAKY, "strategy__around": {}}
    whole = run(tmp_path / "b", recipe(**shorter))
    assert [r.accuracy for r in whole.result.history][:rounds] == [
        r.accuracy for r in result.history
    ]
    module = load_module(tmp_path / "a" / "module")
    np.testing.assert_array_equal(module.head["weight"], finished.head["weight"])
    assert not np.array_equal(finished.head["weight"], whole.head["weight"])


def test_a_run_that_stopped_early_is_finished_for_good(tmp_path: Path) -> None:
    first = run(tmp_path, recipe(**SHAKY))
    before = report(tmp_path)
    again = run(tmp_path, recipe(**SHAKY))
    assert report(tmp_path) == before
    np.testing.assert_array_equal(first.head["weight"], again.head["weight"])  # type: ignore[arg-type]


def test_what_was_best_so_far_survives_a_stop(tmp_path: Path) -> None:
    wanted = recipe(**SHAKY)
    whole = run(tmp_path / "a", wanted)
    stopped(tmp_path / "b", wanted, after=2)
    resumed = run(tmp_path / "b", wanted)
    assert report(tmp_path / "a") == report(tmp_path / "b")
    np.testing.assert_array_equal(whole.head["weight"], resumed.head["weight"])  # type: ignore[arg-type]


def test_without_patience_only_the_best_round_is_kept(tmp_path: Path) -> None:
    wanted = {**SHAKY, "strategy__around": {"early_stopping": {"patience": 0, "by": "loss"}}}
    finished = run(tmp_path, recipe(**wanted))
    losses = [r.loss for r in finished.result.history]
    assert len(losses) == 8
    assert finished.result.accuracy == finished.result.history[int(np.argmin(losses))].accuracy


def test_who_is_told_nothing_cannot_choose(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"early_stopping.*looks at held-out"):
        run(tmp_path, recipe(**SHAKY, privacy__metrics="off"))


@pytest.mark.parametrize(
    ("around", "said"),
    [
        ({"early_stoping": {}}, "Did you mean 'early_stopping'"),
        ({"early_stopping": {"patience": -1}}, "patience = -1"),
        ({"early_stopping": {"by": "luck"}}, "luck"),
        ({"server_rate": {"schedule": "cosin"}}, "Did you mean 'cosine'"),
        ({"server_rate": {"rate": 0.0}}, "rate = 0.0"),
        ({"server_rate": {"rat": 0.5}}, "Did you mean 'rate'"),
    ],
    ids=str,
)
def test_a_wrapper_or_option_that_is_wrong_is_named(
    around: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(StrategyError, match=said):
        run(tmp_path, recipe(strategy__around=around))


def head(folder: Path, around: dict[str, Any], rounds: int) -> np.ndarray:
    wanted: Recipe = recipe(
        train__rounds=rounds, strategy__around=around, privacy__enabled=False, train__lr=1.0
    )
    return np.asarray(run(folder, wanted).head["weight"])


def test_the_server_goes_a_part_of_the_way(tmp_path: Path) -> None:
    """From zero: half the first step, and with a falling rate less in the second round."""
    full = head(tmp_path / "a", {}, 1)
    half = head(tmp_path / "b", {"server_rate": {"rate": 0.5}}, 1)
    np.testing.assert_allclose(half, full / 2, atol=1e-7)
    one = head(tmp_path / "c", {"server_rate": {"schedule": "step", "every": 1}}, 1)
    np.testing.assert_array_equal(one, full)
    two = head(tmp_path / "d", {"server_rate": {"schedule": "step", "every": 1}}, 2)
    both = head(tmp_path / "e", {}, 2)
    np.testing.assert_allclose(two - full, (both - full) / 2, atol=1e-6)
