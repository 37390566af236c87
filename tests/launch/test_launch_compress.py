"""Compressed updates in whole runs: fewer bytes, a head as good, and nothing lost by a stop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from small import recipe, recorded, report, run, stopped

from fedtl.errors import RecipeError
from fedtl.launch.federate import check_deployable
from fedtl.transport.wrappers import WrappedGrid
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.compress import dtypes
from fedtl.wire.messages import TRAIN

PLAIN: dict[str, Any] = {"privacy__enabled": False, "train__rounds": 30, "train__lr": 2.0}
HOWS: dict[str, dict[str, Any]] = {
    "top_k": {"kind": "top_k", "share": 0.1},
    "quantise": {"kind": "quantise", "bits": 2},
    "low_rank": {"kind": "low_rank", "rank": 3},
}
each = pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)


def compressed(how: dict[str, Any], **changes: Any) -> Any:
    named = {f"compress__{key}": value for key, value in how.items()}
    return recipe(**{**PLAIN, **named, **changes})


def bytes_up(finished: Any) -> int:
    return sum(site.bytes_up for site in finished.result.sites)


@each
def test_updates_are_a_fraction_and_the_head_learns_all_the_same(
    how: dict[str, Any], tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", recipe(**PLAIN))
    small = run(tmp_path / "small", compressed(how))
    assert bytes_up(small) < 0.45 * bytes_up(whole)
    assert small.result.accuracy is not None
    assert whole.result.accuracy is not None
    assert small.result.accuracy > whole.result.accuracy - 0.08


@each
def test_a_stopped_run_goes_on_with_what_was_not_sent(how: dict[str, Any], tmp_path: Path) -> None:
    wanted = compressed(how, train__rounds=4)
    whole = run(tmp_path / "a", wanted)
    stopped(tmp_path / "b", wanted, after=2)
    resumed = run(tmp_path / "b", wanted)
    np.testing.assert_array_equal(whole.head["weight"], resumed.head["weight"])  # type: ignore[arg-type]
    assert report(tmp_path / "a") == report(tmp_path / "b")


def test_local_and_stacked_give_the_same_bits(tmp_path: Path) -> None:
    one, other = (
        run(tmp_path / via, compressed(HOWS["top_k"], train__rounds=3, transport__via=via))
        for via in ("stacked", "local")
    )
    np.testing.assert_array_equal(one.head["weight"], other.head["weight"])  # type: ignore[arg-type]


def test_private_updates_are_compressed_after_their_noise(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"privacy__enabled": True, "privacy__epsilon": 50.0}
    private = run(tmp_path / "a", compressed(HOWS["quantise"], **changes))
    whole = run(tmp_path / "b", recipe(**{**PLAIN, **changes}))
    assert [s.epsilon for s in private.result.sites] == [s.epsilon for s in whole.result.sites]
    assert bytes_up(private) < 0.2 * bytes_up(whole)


class Tampering(WrappedGrid):
    """The first site points at numbers that no head has; the second answers with a whole head."""

    def send_and_receive(self, messages: Iterable[Message], **options: Any) -> list[Message]:
        replies = list(self.inner.send_and_receive(messages, **options))
        for reply in replies:
            node, kind = reply.metadata.src_node_id, reply.metadata.message_type
            if kind == TRAIN and node == 1000:
                forged = {**unpack(reply.content["arrays"], dtypes())}
                forged["at"] = forged["at"] + np.uint32(10**6)
                reply.content["arrays"] = pack(forged)
            if kind == TRAIN and node == 1001:
                reply.content["arrays"] = pack({"weight": np.zeros((10, 1281), np.float32)})
        return replies


def test_a_site_that_sends_no_such_move_is_left_out_by_name(tmp_path: Path) -> None:
    wanted = compressed(HOWS["top_k"], train__rounds=2, backbone__taps="final")
    finished = run(tmp_path, wanted, grid=Tampering(recorded(wanted)))
    assert [site.failures for site in finished.result.sites] == [{"message.invalid": 2}, {}, {}]


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="masked updates"):
        run(tmp_path, compressed(HOWS["top_k"], transport__secure=True))
    with pytest.raises(RecipeError, match="compress"):
        recipe(compress__kind="topk")
    check_deployable(compressed(HOWS["top_k"]))
