"""The sum is exact, whoever is lost, and below the threshold there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol import STAGES, identity, names, plain_sum, play, random_vectors, session

from fedtl.errors import PrivacyError
from fedtl.privacy.secagg import confirm
from fedtl.privacy.secagg.codec import dump


@st.composite
def losses(draw: st.DrawFn) -> tuple[int, int, dict[str, set[str]]]:
    """Return sites, length, and who is lost at which stage: at most a third in all."""
    n = draw(st.integers(2, 12))
    who = draw(
        st.lists(st.sampled_from(names(n)), max_size=n - max(2, -(-2 * n // 3)), unique=True)
    )
    lost: dict[str, set[str]] = {}
    for name in who:
        lost.setdefault(draw(st.sampled_from(STAGES)), set()).add(name)
    return n, draw(st.integers(1, 40)), lost


@given(losses())
@settings(max_examples=60)
@example((6, 5, {"keys": {"site-000"}, "masked": {"site-005"}}))
@example((10, 20_000, {"shares": {"site-001"}, "masked": {"site-000"}, "unmask": {"site-009"}}))
def test_the_sum_is_that_of_the_sites_whose_vectors_arrived(
    case: tuple[int, int, dict[str, set[str]]],
) -> None:
    n, length, lost = case
    vectors = random_vectors(n, length)
    p, total = play(session(n), vectors, lost=lost)
    early = set().union(*(lost.get(stage, set()) for stage in ("keys", "shares", "masked")))
    assert set(p.server.survivors) == set(names(n)) - early
    assert total is not None
    np.testing.assert_array_equal(total, plain_sum(vectors, p.server.survivors))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [2, 3, 10])
def test_one_site_too_few_ends_it_whatever_the_stage(stage: str, n: int) -> None:
    least = max(2, -(-2 * n // 3))
    vectors = random_vectors(n, 4)
    everyone = names(n)
    play(session(n), vectors, lost={stage: everyone[least:]})
    with pytest.raises(PrivacyError, match="nothing is revealed") as caught:
        play(session(n), vectors, lost={stage: everyone[least - 1 :]})
    assert caught.value.code == "secagg.threshold"


def test_below_the_threshold_no_site_has_said_anything_about_a_mask() -> None:
    """Whatever the server asks, sites that are shown too few survivors keep their shares."""
    this = session(6)
    p, _ = play(this, random_vectors(6, 4), until="confirm")
    few = dump({"session": this.digest(), "names": names(3)})
    for name in names(3):
        with pytest.raises(PrivacyError, match="3 sites are left and 4 are needed"):
            confirm(p.secrets[name], few, identity(name))


def test_a_masked_vector_alone_is_uniform() -> None:
    """Chi-square of its bytes: the same zeros in every session, 64 KiB of masks each time."""
    zeros = {name: np.zeros(8192, np.uint64) for name in names(3)}
    counts = np.zeros(256)
    for _ in range(4):
        p, _ = play(session(3), zeros, until="confirm")
        counts += np.bincount(p.masked["site-001"].view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 255 - 6 * 510**0.5 < chi2 < 255 + 6 * 510**0.5


def test_all_masked_vectors_but_one_say_nothing_about_the_sum() -> None:
    """Pairwise masks cancel in the whole sum only, and even there the sites' own ones are left."""
    zeros = {name: np.zeros(2000, np.uint64) for name in names(4)}
    p, _ = play(session(4), zeros, until="confirm")
    for chosen in (names(4), names(4)[1:], names(4)[:2]):
        top_bits = plain_sum(p.masked, chosen) >> np.uint64(63)
        assert 800 < int(top_bits.sum()) < 1200


def test_masks_are_new_in_every_session() -> None:
    zeros = {name: np.zeros(10, np.uint64) for name in names(3)}
    first, _ = play(session(3, number=1), zeros, until="confirm")
    second, _ = play(session(3, number=2), zeros, until="confirm")
    assert not (first.masked["site-000"] == second.masked["site-000"]).any()


def test_a_hundred_sites_have_fewer_neighbours_and_the_same_sum() -> None:
    vectors = random_vectors(100, 7)
    lost = {"shares": ["site-003", "site-050"], "masked": names(100)[::17], "unmask": ["site-099"]}
    p, total = play(session(100), vectors, lost=lost)
    assert {len(s.masks) for s in p.secrets.values()} == {55}
    assert total is not None
    np.testing.assert_array_equal(total, plain_sum(vectors, p.server.survivors))
    assert len(p.server.survivors) == 92
