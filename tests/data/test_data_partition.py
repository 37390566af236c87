import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtl.data import PARTITIONS, SiteRows, open_data, partition
from fedtl.errors import DataError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 6000)
TEST = RNG.random(6000) < 0.25


def skew(site: SiteRows, part: str) -> np.ndarray:
    rows = getattr(site, part)
    return np.bincount(LABELS[rows], minlength=10) / max(1, len(rows))


@given(
    kind=st.sampled_from(sorted(PARTITIONS)),
    sites=st.integers(1, 12),
    n=st.integers(60, 300),
    alpha=st.sampled_from([0.01, 0.5, 100.0]),
    seed=st.integers(0, 9),
)
def test_each_row_goes_to_exactly_one_site(
    kind: str, sites: int, n: int, alpha: float, seed: int
) -> None:
    labels, test = LABELS[:n] % 3, TEST[:n]
    natural = [f"ward {row % sites}" for row in range(n)]
    cut = partition(
        labels,
        test,
        kind=kind,
        sites=sites,
        seed=seed,
        alpha=alpha,
        classes_per_site=3,
        groups=[f"patient {row // 3}" for row in range(n)],
        natural=natural,
        min_examples=1,
    )
    assert len(cut) == sites
    assert np.array_equal(np.sort(np.concatenate([s.train for s in cut])), np.flatnonzero(~test))
    assert np.array_equal(np.sort(np.concatenate([s.test for s in cut])), np.flatnonzero(test))
    assert all(len(site.train) >= 1 and (np.diff(site.train) > 0).all() for site in cut)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "classes", "quantity"])
def test_the_seed_alone_decides(kind: str) -> None:
    one, same, other = (
        partition(LABELS, TEST, kind=kind, sites=10, seed=seed) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a.train, b.train) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.train, b.train) for a, b in zip(one, other, strict=True))
    assert [site.name for site in one][:2] == ["site-01", "site-02"]


def test_names_sort_like_their_numbers() -> None:
    names = [site.name for site in partition(LABELS, TEST, kind="iid", sites=1000, seed=1)]
    assert names == sorted(names)
    assert names[0] == "site-0001"


def test_iid_sites_are_equally_large() -> None:
    cut = partition(LABELS, TEST, kind="iid", sites=7, seed=1)
    for part in ("train", "test"):
        sizes = [len(getattr(site, part)) for site in cut]
        assert max(sizes) - min(sizes) <= 1


def test_dirichlet_train_and_test_of_a_site_share_their_skew() -> None:
    cut = partition(LABELS, TEST, kind="dirichlet", sites=8, seed=3, alpha=0.3)
    own = np.mean([np.abs(skew(s, "train") - skew(s, "test")).sum() for s in cut])
    others = np.mean([np.abs(skew(s, "train") - skew(cut[i - 1], "test")).sum()
                      for i, s in enumerate(cut)])  # fmt: skip
    assert own < 0.15 < 0.8 < others


def test_a_smaller_alpha_is_more_skewed() -> None:
    purity = [
        np.mean([skew(site, "train").max() for site in cut])
        for alpha in (0.05, 0.5, 50.0)
        for cut in [partition(LABELS, TEST, kind="dirichlet", sites=8, seed=3, alpha=alpha)]
    ]
    assert purity[0] > purity[1] > purity[2]
    assert purity[2] < 0.2


def test_classes_gives_each_site_exactly_its_number_of_classes() -> None:
    cut = partition(LABELS, TEST, kind="classes", sites=15, seed=1, classes_per_site=2)
    held = [set(LABELS[site.train]) for site in cut]
    assert {len(classes) for classes in held} == {2}
    assert all(set(LABELS[site.test]) == own for site, own in zip(cut, held, strict=True))
    assert {sum(c in own for own in held) for c in range(10)} == {3}
    assert len({frozenset(own) for own in held}) > 5


def test_quantity_varies_sizes_but_not_labels() -> None:
    cut = partition(LABELS, TEST, kind="quantity", sites=6, seed=1, alpha=1.0)
    sizes = np.array([len(site.train) for site in cut])
    assert sizes.max() > 2 * sizes.min()
    big = cut[int(sizes.argmax())]
    assert skew(big, "train").max() < 0.15
    assert len(big.test) / len(big.train) == pytest.approx(TEST.sum() / (~TEST).sum(), rel=0.05)


def test_topped_up_sites_do_not_get_the_last_class_of_a_sorted_data_set() -> None:
    labels = np.sort(LABELS)
    cut = partition(labels, TEST, kind="quantity", sites=200, seed=1, alpha=0.02, min_examples=3)
    small = np.concatenate([site.train for site in cut if len(site.train) == 3])
    assert len(small) > 300
    assert np.bincount(labels[small], minlength=10).max() < 0.2 * len(small)


@given(st.integers(1, 8), st.integers(0, 5))
def test_groups_stay_whole_and_sites_stay_balanced(sites: int, seed: int) -> None:
    groups = [f"patient {row // 4}" for row in range(400)]
    test = np.repeat(RNG.random(100) < 0.2, 4)
    cut = partition(LABELS[:400], test, kind="group", sites=sites, seed=seed, groups=groups)
    owners: dict[str, set[str]] = {}
    for site in cut:
        for row in [*site.train, *site.test]:
            owners.setdefault(groups[row], set()).add(site.name)
    assert {len(names) for names in owners.values()} == {1}
    sizes = [len(site.train) for site in cut]
    assert max(sizes) - min(sizes) <= 4


def test_natural_sites_keep_their_names_and_rows() -> None:
    natural = ["north", "south", "north", "south", "north", "south"]
    cut = partition(
        np.arange(6) % 2, np.arange(6) > 3, kind="natural", sites=0, seed=1, natural=natural
    )
    assert [(s.name, s.train.tolist(), s.test.tolist()) for s in cut] == [
        ("north", [0, 2], [4]),
        ("south", [1, 3], [5]),
    ]


def test_extreme_skew_ends_and_leaves_no_site_empty() -> None:
    digits = open_data("digits")
    for alpha in (1e-6, 0.01, 1e6):
        cut = partition(
            digits.labels, digits.test, kind="dirichlet", sites=100, seed=1, alpha=alpha
        )
        assert min(len(site.train) for site in cut) >= 2


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "classes", "quantity", "group"])
def test_ten_thousand_sites_are_cut_quickly(kind: str) -> None:
    labels, test = np.tile(LABELS, 10), np.tile(TEST, 10)
    groups = [str(row // 2) for row in range(60_000)]
    begin = time.process_time()
    cut = partition(labels, test, kind=kind, sites=10_000, seed=1, groups=groups, min_examples=1)
    assert time.process_time() - begin < 2
    assert sum(len(site.train) for site in cut) == (~test).sum()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "dirichlett"}, "Did you mean 'dirichlet'"),
        ({"sites": 0}, "sites is 0"),
        ({"sites": 5000}, "too few for 5000 sites"),
        ({"kind": "dirichlet", "alpha": 0.0}, "alpha is 0"),
        ({"kind": "quantity", "alpha": float("nan")}, "alpha is nan"),
        ({"kind": "classes", "classes_per_site": 11}, "classes_per_site is 11"),
        ({"kind": "classes", "sites": 4}, "Choose from 3 to 10"),
        ({"kind": "group"}, "needs groups"),
        ({"kind": "group", "groups": ["a"] * 6000}, "1 groups"),
        ({"kind": "group", "groups": ["a"]}, "1 of groups"),
        ({"kind": "natural"}, "needs sites"),
        ({"kind": "natural", "natural": ["a", "b"] * 3000, "sites": 3}, "sites is 3"),
        ({"kind": "natural", "natural": ["a"] * 5999 + ["b"], "sites": 2}, "'b' has"),
        ({"min_examples": -1}, "min_examples is -1"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        partition(LABELS, TEST, **{"kind": "iid", "sites": 3, "seed": 1, **arguments})
    assert caught.value.next_step


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="0 training rows"):
        partition(np.array([], int), np.array([], bool), kind="dirichlet", sites=1, seed=1)
