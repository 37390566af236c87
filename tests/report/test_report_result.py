"""``report.json`` is read again by later commands: nothing may be lost, and rubbish is refused."""

from __future__ import annotations

import json

import pytest
from sample import sample, stopped, without_evaluation, without_privacy

from fedtl.errors import CacheError
from fedtl.report.result import RunResult


@pytest.mark.parametrize("change", [lambda r: r, stopped, without_evaluation, without_privacy])
def test_a_result_survives_its_json(change) -> None:
    result = change(sample(sites=3, rounds=4, failing=0.5))
    assert RunResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": "x"}', "null"])
def test_what_is_no_result_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(CacheError, match=r"'runs/a/report\.json'"):
        RunResult.from_json(text, place="runs/a/report.json")


def test_a_result_without_sites_list_is_refused() -> None:
    broken = json.loads(sample(sites=1, rounds=1).to_json())
    del broken["sites"]
    with pytest.raises(CacheError):
        RunResult.from_json(json.dumps(broken))
