"""A site's head does not depend on who else is in the cohort, to the last bit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_release

from fedtl.train.fit import Examples, fit
from fedtl.train.objectives import Bound, LocalObjective
from fedtl.train.objectives.objective import Local
from fedtl.train.objectives.proximal import Proximal
from fedtl.train.streams import SeededStreams, SystemStreams, add_normal
from fedtl.train.task import TrainTask


@given(
    sizes=st.lists(st.sampled_from([1, 2, 5, 20, 33]), min_size=2, max_size=8),
    width=st.sampled_from([1, 3, 17, 65, 257]),
    classes=st.sampled_from([2, 3, 10, 33]),
    sampling=st.sampled_from(["full", "shuffle", "poisson"]),
    private=st.booleans(),
    optimizer=st.sampled_from(["sgd", "adam"]),
    momentum=st.sampled_from([0.0, 0.9]),
    averaging=st.sampled_from([0.0, 0.3, 0.9]),
    pull=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=60)
def test_in_a_cohort_a_site_gets_the_bits_it_gets_alone(
    sizes: list[int],
    width: int,
    classes: int,
    sampling: str,
    private: bool,
    optimizer: str,
    momentum: float,
    averaging: float,
    pull: float,
) -> None:
    """``local`` trains sites alone and ``stacked`` together: their heads would drift apart."""
    generator = torch.Generator().manual_seed(len(sizes) * 1000 + width)
    sites = [
        Examples.of(
            torch.randn(n, width, generator=generator),
            torch.randint(0, classes, (n,), generator=generator),
        )
        for n in sizes
    ]
    head = torch.randn(classes, width, generator=generator)
    task = TrainTask(
        rounds=2,
        steps=3,
        sampling=sampling,
        batch_size=4,
        optimizer=optimizer,
        lr=0.3,
        momentum=momentum,
        averaging=averaging,
        weight_decay=pull,
        schedule="cosine",
    )
    release = (
        toy_release(poisson=sampling == "poisson") if private and sampling != "shuffle" else None
    )

    aim = Bound(Proximal(mu=pull))

    def trained(chosen: list[int]) -> torch.Tensor:
        streams = [SeededStreams(1, 1, f"site-{at}") for at in chosen]
        heads, examples = head.expand(len(chosen), -1, -1), [sites[at] for at in chosen]
        return fit(heads, examples, task=task, release=release, streams=streams, objective=aim)

    together = trained(list(range(len(sites))))
    alone = [trained([at])[0] for at in range(len(sites))]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.fixture
def spread_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let chunks of any size be worth a thread, and set how many threads there are."""
    monkeypatch.setattr("fedtl.train.threads._WORTH_IT", 1)
    monkeypatch.setattr("fedtl.train.fit._PRODUCT", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("private", [False, True])
def test_chunks_on_several_threads_give_the_same_bits(
    private: bool, spread_out: Callable[[int], None]
) -> None:
    generator, heads = torch.Generator().manual_seed(1), torch.zeros(40, 3, 17)
    rows = [torch.randn(20 + at, 17, generator=generator) for at in range(40)]
    sites = [Examples.of(x, torch.arange(len(x)) % 3) for x in rows]
    task = TrainTask(rounds=1, steps=5, sampling="poisson", batch_size=8, lr=0.3)
    release, aim = (toy_release(poisson=True) if private else None), Bound(Watched(mu=0.1))

    def trained(threads: int) -> tuple[torch.Tensor, int]:
        Watched.seen.clear()
        spread_out(threads)
        streams = [SeededStreams(1, 1, f"site-{at}") for at in range(40)]
        kwargs = {"task": task, "release": release, "streams": streams, "objective": aim}
        return fit(heads, sites, **kwargs, chunk=2), len(Watched.seen)

    (one, alone), (many, several) = trained(1), trained(4)
    assert torch.equal(one, many)
    assert (alone, several > 1) == (1, True)
    assert one.abs().sum() > 1


class Watched(Proximal):
    """Keeps which threads asked it, and lets others run meanwhile."""

    seen: ClassVar[set[int]] = set()

    def penalty_gradient(self, weights: torch.Tensor, local: Local) -> torch.Tensor | None:
        self.seen.add(threading.get_ident())
        time.sleep(0.001)
        return super().penalty_gradient(weights, local)


def test_an_objective_that_fails_on_a_thread_fails_the_training(
    spread_out: Callable[[int], None],
) -> None:
    spread_out(2)
    sites = [Examples.of(torch.ones(2, 3), torch.tensor([0, 1]))] * 4
    streams, task = [SeededStreams(1, 1, "a")] * 4, TrainTask(rounds=1)
    with pytest.raises(ZeroDivisionError):
        fit(
            torch.zeros(4, 2, 3),
            sites,
            task=task,
            release=None,
            streams=streams,
            objective=Bound(Failing()),
            chunk=1,
        )


class Failing(LocalObjective):
    """Raises in a step, on any thread but the first."""

    def penalty_gradient(self, weights: torch.Tensor, local: Local) -> torch.Tensor | None:
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError
        return None


def test_a_seeded_sites_noise_is_the_same_beside_a_real_site() -> None:
    shape = (3, 7)
    alone = SeededStreams(1, 1, "a").normal(shape)
    beside = torch.zeros(3, *shape)
    add_normal(beside, [SystemStreams(), SeededStreams(1, 1, "a"), SystemStreams()], 1.0)
    assert torch.equal(beside[1], alone)
    assert not torch.equal(beside[0], beside[2])
