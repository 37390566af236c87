"""A run with real sites, as its ServerApp tells it; here the Grid is the in-process one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from flwr.clientapp import ClientApp

from fedtl.apps.client import make_client_app
from fedtl.errors import CacheError, RecipeError, TransportError
from fedtl.launch.federate import check_deployable, federate
from fedtl.launch.federation import Federation, build
from fedtl.launch.run_folder import claim
from fedtl.launch.simulate import simulate
from fedtl.launch.watch import read_progress
from fedtl.modules import load_module
from fedtl.privacy.ledger import Budget, Ledger
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe, replaced
from fedtl.site.policy import SitePolicy
from fedtl.site.site import Site
from fedtl.transport.local import LocalGrid
from fedtl.wire.sealed import CONFIRM, REVEAL

KEY = Identity(bytes(range(32)))
OPEN = SitePolicy(unprotected=True, clear_metrics=True)
QUICK: dict[str, object] = {"least_sites": 2, "wait": 0.5, "patience": 0.0, "retries": 0}


def small(**privacy: object) -> Recipe:
    tables: dict[str, Any] = {
        "name": "small",
        "data": {"limit": 160},
        "partition": {"sites": 3},
        "backbone": {"image_size": 32},
        "train": {"rounds": 3, "local_steps": 2},
        "privacy": {"enabled": False, **privacy},
        "compare": {"without_privacy": False, "local_only": False},
        "federation": QUICK,
    }
    return Recipe.model_validate(tables)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return build(small())


@pytest.fixture
def real(federation: Federation, tmp_path: Path) -> Callable[..., dict[str, Site]]:
    """Return sites like deployed ones: with ledgers and policies, and noise from the system."""

    def sites(policy: SitePolicy = OPEN, *, ledgers: bool = False) -> dict[str, Site]:
        made = {}
        for at, name in enumerate(federation.names):
            site = replace(federation.site(at), simulated=False, policy=policy, run="")
            if ledgers:
                ledger = Ledger.open(tmp_path / f"{name}.sqlite", durable=False)
                site.ledger = ledger
                site.dataset = federation._dataset(federation.rows[at].train, ledger)
                site.held_out_dataset = federation._dataset(federation.rows[at].test, ledger)
            made[name] = site
        return made

    return sites


def grid_of(sites: dict[str, Site]) -> LocalGrid:
    def site_of(context: Context) -> Site:
        return sites[str(context.node_config["site"])]

    return LocalGrid(make_client_app(site_of), list(sites))


class Cut(LocalGrid):
    """Sites answer a kind of message for the so-manieth time, and the server dies."""

    def __init__(self, app: ClientApp, names: list[str], *, kind: str, left: int) -> None:
        super().__init__(app, names)
        self._kind, self._left = kind, left

    def answer(self, messages: Any, deadline: Any) -> Any:
        replies = super().answer(messages, deadline)
        if messages and messages[0].metadata.message_type == self._kind:
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt
        return replies


def begun(folder: Path, recipe: Recipe) -> Path:
    claim(folder, recipe)
    return folder


def test_the_head_is_that_of_a_simulation_and_a_round_is_one_phase(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    recipe = small()
    simulated = simulate(recipe, tmp_path / "simulated", html=False)
    grid = grid_of(real())
    phases: list[set[str]] = []
    answer = grid.answer

    def counted(messages: Any, deadline: Any) -> Any:
        if messages:
            phases.append({m.metadata.message_type for m in messages})
        return answer(messages, deadline)

    grid.answer = counted  # type: ignore[method-assign]
    result = federate(begun(tmp_path / "run", recipe), grid, KEY)
    head = load_module(tmp_path / "run" / "module").head
    np.testing.assert_array_equal(head["weight"], simulated.head["weight"])  # type: ignore[arg-type]
    assert phases == [{"query.describe"}, {"train"}, {"train"}, {"train"}, {"evaluate"}]
    expected = [r.accuracy for r in simulated.result.history]
    assert [r.accuracy for r in result.history] == expected
    assert all(r.accuracy is not None for r in result.history)
    told = read_progress(tmp_path / "run")
    assert told is not None
    assert (told.state, told.round, told.rounds) == ("finished", 3, 3)
    assert {s.name for s in told.sites} == set(result.history[0].cohort)
    assert all(s.down > s.up > 0 for s in told.sites)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_private_run_that_is_cut_goes_on_and_nobody_pays_twice(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    recipe = small(enabled=True, public_size=50, metrics="noised", epsilon=50.0)
    sites = real(SitePolicy(), ledgers=True)
    folder = begun(tmp_path / "run", recipe)

    with pytest.raises(KeyboardInterrupt):
        federate(folder, Cut(grid_of(sites)._app, list(sites), kind="train", left=3), KEY)
    told = read_progress(folder)
    assert told is not None
    assert (told.state, told.round) == ("stopped", 2)
    result = federate(folder, grid_of(sites), KEY)
    assert [r.round for r in result.history] == [1, 2, 3]
    assert all(r.accuracy is not None for r in result.history)
    for name, site in sites.items():
        assert site.ledger is not None
        paid = Counter(e.request.message for e in site.ledger.entries() if e.kind == "charge")
        assert paid == {"train": 3, "evaluate": 3}, name


SECURE: dict[str, object] = {"secure": True, "secure_threshold": 0.6}


def summed(**privacy: object) -> Recipe:
    """Return a recipe whose sites share the noise out under secure aggregation."""
    asked = {"enabled": True, "public_size": 50, "metrics": "off", "model": "distributed"}
    return replaced(
        small(**{**asked, **privacy}), transport=SECURE, train={"rounds": 2, "local_steps": 1}
    )


@pytest.mark.parametrize("kind", ["train", CONFIRM, REVEAL])
def test_a_sum_that_is_cut_is_finished_in_the_same_session_and_nobody_pays_twice(
    kind: str, real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    sites = real(SitePolicy(), ledgers=True)
    folder = begun(tmp_path / "run", summed())
    grid = grid_of(sites)
    cut = Cut(grid._app, list(sites), kind=kind, left=2)
    grid._contexts = cut._contexts  # what agents remember of the run
    with pytest.raises(KeyboardInterrupt):
        federate(folder, cut, KEY)
    result = federate(folder, grid, KEY)
    assert [r.round for r in result.history] == [1, 2]
    assert not any(r.failures for r in result.history)
    for name, site in sites.items():
        assert site.ledger is not None
        assert [e.kind for e in site.ledger.entries()] == ["charge", "reply"] * 2, name


def test_a_site_that_comes_late_joins_the_next_sum(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    sites = real(SitePolicy(), ledgers=True)

    class Growing(LocalGrid):
        answered = 0

        def get_node_ids(self) -> list[int]:
            return list(super().get_node_ids())[: 3 if self.answered else 2]

        def answer(self, messages: Any, deadline: Any) -> Any:
            replies = super().answer(messages, deadline)
            self.answered += sum(r.metadata.message_type == REVEAL for r in replies)
            return replies

    recipe = replaced(summed(honest_sites=2), transport=SECURE)
    grid = Growing(grid_of(sites)._app, list(sites))
    result = federate(begun(tmp_path / "run", recipe), grid, KEY)
    assert [len(r.cohort) for r in result.history] == [2, 3]
    assert not any(r.failures for r in result.history)


def test_a_run_is_not_begun_without_enough_sites_and_says_who_differs(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    sites = real()
    names = list(sites)
    sites[names[0]].classes = (*sites[names[0]].classes[:-1], "ten")
    sites[names[1]].backbone = "another"
    recipe = replaced(small(), federation={"least_sites": 2})
    with pytest.raises(TransportError) as error:
        federate(begun(tmp_path / "run", recipe), grid_of(sites), KEY)
    assert error.value.code == "sites.missing"
    assert names[0] in str(error.value)
    assert names[1] in str(error.value)
    told = read_progress(tmp_path / "run")
    assert told is not None
    assert told.state == "failed"
    assert "1 of 2 sites" in told.said


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (SitePolicy(clear_metrics=True), "policy.unprotected"),
        (replace(OPEN, coordinators=("ab" * 32,)), "policy.coordinator"),
        (replace(OPEN, recipes=("ab" * 32,)), "policy.recipe"),
        (replace(OPEN, least_examples=10_000), "policy.examples"),
    ],
)
def test_a_site_that_would_refuse_says_so_before_the_first_round(
    policy: SitePolicy, code: str, real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    sites = real()
    first, *others = sites
    sites[first].policy = policy
    result = federate(begun(tmp_path / "run", small()), grid_of(sites), KEY)
    assert [r.cohort for r in result.history] == [others] * 3
    told = read_progress(tmp_path / "run")
    assert told is not None
    assert {s.name: s.detail for s in told.sites if s.detail} == {
        first: f"cannot take part ({code})"
    }


def test_so_does_one_whose_budget_is_too_small_for_the_whole_run_and_nothing_is_paid(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    recipe = small(enabled=True, public_size=50, metrics="off", epsilon=4.0)
    for epsilon, takes_part in ((3.9, False), (4.0, True)):
        sites = real(SitePolicy(), ledgers=True)
        first, *others = sites
        sites[first].policy = SitePolicy(budget=Budget(epsilon, 1e-5))
        folder = begun(tmp_path / f"run-{epsilon}", recipe)
        result = federate(folder, grid_of(sites), KEY)
        cohort = [first, *others] if takes_part else others
        assert [r.cohort for r in result.history] == [cohort] * 3
        again = federate(folder, grid_of(sites), KEY)  # what the run has paid is not counted twice
        assert [r.cohort for r in again.history] == [cohort] * 3
        ledger = sites[first].ledger
        assert ledger is not None
        assert bool(ledger.entries()) == takes_part
        for site in sites.values():
            assert site.ledger is not None
            site.ledger.close()
            Path(site.ledger.path).unlink()


def test_a_site_that_fails_is_named_and_left_out_of_its_round(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    sites = real()
    first, *others = sites
    damaged = sites[first].examples
    sites[first].load = lambda: damaged
    sites[first].__dict__["examples"] = (replace(damaged[0], y=damaged[0].y + 100), damaged[1])
    result = federate(begun(tmp_path / "run", small()), grid_of(sites), KEY)
    for record in result.history:
        assert record.failures == {first: "site.failed"}
        assert set(record.site_accuracy) == {first, *others}
    recipe = replaced(small(), federation={"least_updates": 3})
    with pytest.raises(TransportError, match="2 of 3 sites") as error:
        federate(begun(tmp_path / "more", recipe), grid_of(sites), KEY)
    assert error.value.code == "round.few"


def test_a_damaged_run_file_is_never_replaced(
    real: Callable[..., dict[str, Site]], tmp_path: Path
) -> None:
    folder = begun(tmp_path / "run", small())
    federate(folder, grid_of(real()), KEY)
    told = json.loads((folder / "run.json").read_text())
    assert len(told["run"]) > 32
    (folder / "run.json").write_text("{")
    with pytest.raises(CacheError, match=r"run\.json"):
        federate(folder, grid_of(real()), KEY)


def test_a_private_run_needs_a_public_size() -> None:
    with pytest.raises(RecipeError, match="public_size"):
        check_deployable(small(enabled=True))
    check_deployable(small(enabled=True, public_size=100))
    check_deployable(small())
