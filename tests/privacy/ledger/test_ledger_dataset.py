"""Spend follows the record, whatever happens to the folder it lies in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import DATA, EVENT, dataset, request

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import ComposedEvent, GaussianEvent
from fedtl.privacy.ledger import DataSet, Ledger

OTHER = GaussianEvent(3.0, 2)


def spent_after(tmp_path, *charges: tuple[DataSet, GaussianEvent], asked: DataSet) -> float:
    with Ledger.open(tmp_path / "l", durable=False) as ledger:
        for round_, (data, event) in enumerate(charges):
            ledger.charge(request(round_), data, event)
        return epsilon_of(ledger.spend(asked), 1e-5)


@pytest.mark.parametrize(
    "asked",
    [
        dataset(reversed(range(5))),  # sorted anew
        dataset([*range(5), "new"]),  # grown
        dataset(range(3)),  # a part
        dataset([4, "a", "b", "c"]),  # one record among new ones
        dataset([0, 0, 1]),  # the same picture twice
        dataset(range(5), groups="ppqqq"),  # the same records under another unit
    ],
)
def test_a_changed_folder_does_not_start_at_zero(tmp_path, asked: DataSet) -> None:
    assert spent_after(tmp_path, (DATA, EVENT), asked=asked) == epsilon_of(EVENT, 1e-5)


def test_other_records_have_spent_nothing(tmp_path) -> None:
    assert spent_after(tmp_path, (DATA, EVENT), asked=dataset("abc")) == 0.0
    assert spent_after(tmp_path, (DATA, EVENT), asked=dataset([])) == 0.0


def test_disjoint_data_sets_compose_in_parallel_and_overlaps_add_up(tmp_path) -> None:
    halves = (dataset(range(3)), EVENT), (dataset(range(3, 6)), EVENT)
    assert spent_after(tmp_path, *halves, asked=dataset(range(6))) == epsilon_of(EVENT, 1e-5)
    overlap = (dataset([2, 3]), EVENT)
    both = epsilon_of(GaussianEvent(4.0, 2), 1e-5)
    assert spent_after(tmp_path / "2", *halves, overlap, asked=dataset(range(6))) == both


def test_a_new_picture_of_a_known_patient_is_that_patients_spend(tmp_path) -> None:
    with Ledger.open(tmp_path / "l", durable=False) as ledger:
        before = dataset("ab", groups=["p", "q"], salt=ledger.salt)
        ledger.charge(request(), before, EVENT)
        assert ledger.spend(dataset("xy", groups=["p", "new"], salt=ledger.salt)) == EVENT
        assert ledger.spend(dataset("xy", groups=["u", "v"], salt=ledger.salt)) == ComposedEvent(())
        # a patient has spent what any of the own pictures has, under whatever unit
        ledger.charge(request(2), dataset("a"), OTHER)
        ledger.charge(request(3), dataset("c"), OTHER)
        apart = dataset("ac", groups=["u", "v"], salt=ledger.salt)
        assert ledger.spend(apart) == ComposedEvent((OTHER, EVENT))
        joined = dataset("xac", groups=["p", "p", "p"], salt=ledger.salt)
        assert ledger.spend(joined) == ComposedEvent((GaussianEvent(3.0, 4), EVENT))


def test_group_ids_are_not_stored_in_clear_and_mean_nothing_elsewhere(tmp_path) -> None:
    with Ledger.open(tmp_path / "a") as one, Ledger.open(tmp_path / "b") as two:
        assert one.salt != two.salt
        patient = dataset("x", groups=["patient-0815"], salt=one.salt)
        assert patient != dataset("x", groups=["patient-0815"], salt=two.salt)
        one.charge(request(), patient, EVENT)
    assert b"patient-0815" not in (tmp_path / "a").read_bytes()


def test_data_sets_come_back_from_the_file(tmp_path) -> None:
    with Ledger.open(tmp_path / "l") as ledger:
        sets = [DATA, dataset(range(9), groups="aabbccddd", salt=ledger.salt), dataset([])]
        for round_, data in enumerate(sets):
            ledger.charge(request(round_), data, EVENT)
    with Ledger.open(tmp_path / "l", read_only=True) as ledger:
        assert ledger.datasets() == sets
        assert [(d.unit, len(d), d.units) for d in ledger.datasets()] == [
            *(("example", 5, 5), ("group", 9, 4), ("example", 0, 0))
        ]


@pytest.mark.parametrize(
    ("digests", "groups", "salt"),
    [
        (np.zeros((2, 16), np.uint8), None, b"s"),
        (np.zeros((2, 32), np.int64), None, b"s"),
        (np.zeros((2, 32), np.uint8), ["one"], b"s"),
        (np.zeros((2, 32), np.uint8), ["one", "two"], b""),
    ],
)
def test_what_is_no_data_set_is_refused(digests, groups, salt) -> None:
    with pytest.raises(PrivacyError) as error:
        DataSet.of(digests, groups=groups, salt=salt)
    assert error.value.next_step


def test_keys_that_end_in_zeros_are_told_apart() -> None:
    """NumPy compares fixed-length byte strings without their trailing zeros."""
    rows = np.zeros((3, 32), np.uint8)
    rows[1, 0], rows[2, 1] = 1, 1
    data = DataSet.of(rows)
    assert len(data) == 3
    assert DataSet.from_bytes("example", data.to_bytes()) == data
    assert data.covered_by(DataSet.of(rows[1:2])).sum() == 1


@dataclass(frozen=True)
class Slow:
    """A data set as plain Python: record to group; no group under unit example."""

    members: dict[int, str | None]

    def fast(self) -> DataSet:
        if None in self.members.values() or not self.members:
            return dataset(self.members)
        return dataset(self.members, groups=[str(g) for g in self.members.values()])

    def units(self) -> list[tuple[set[int], set[str]]]:
        """Return the records and the group of every unit."""
        if None in self.members.values():
            return [({record}, set()) for record in self.members]
        groups = {g for g in self.members.values() if g}
        return [({r for r, g in self.members.items() if g == one}, {one}) for one in groups]

    def was_about(self, records: set[int], groups: set[str]) -> bool:
        return bool(records & set(self.members) or groups & set(self.members.values()))


def slow_sets() -> st.SearchStrategy[Slow]:
    some = st.sets(st.integers(0, 7), min_size=1)
    plain = some.map(lambda rs: Slow(dict.fromkeys(rs)))
    grouped = st.dictionaries(st.integers(0, 7), st.sampled_from("pqrs"), min_size=1).map(Slow)
    return plain | grouped


@settings(max_examples=80)
@given(
    st.lists(st.tuples(slow_sets(), st.sampled_from([2.0, 3.0, 5.0]), st.integers(1, 3))),
    slow_sets(),
)
def test_spend_is_that_of_the_worst_unit(tmp_path_factory, charges, asked: Slow) -> None:
    """Against composing, unit by unit, the events of all data sets that were about it."""
    fast = spent_after(
        tmp_path_factory.mktemp("ledger"),
        *((data.fast(), GaussianEvent(noise, n)) for data, noise, n in charges),
        asked=asked.fast(),
    )
    slow = [
        epsilon_of(
            ComposedEvent(
                tuple(
                    GaussianEvent(noise, n) for data, noise, n in charges if data.was_about(*unit)
                )
            ),
            1e-5,
        )
        for unit in asked.units()
    ]
    assert fast == max(slow)
