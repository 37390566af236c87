"""Arrays on the wire: nothing is lost on the way, and nothing hostile comes in."""

from __future__ import annotations

import gc
import pickle
import weakref
from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedtl.errors import FedtlError
from fedtl.wire.arrays import HostArray, HostRecordDict, count_bytes, pack, unpack

floats = npst.arrays(
    dtype=st.sampled_from([np.float32, np.float64]),
    shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0),
    elements=st.floats(-1e6, 1e6, width=32),
)


def npy(values: np.ndarray, **options: object) -> bytes:
    buffer = BytesIO()
    np.save(buffer, values, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def received(
    data: bytes, *, dtype: str = "float32", shape: tuple[int, ...] = (2, 3)
) -> ArrayRecord:
    return ArrayRecord({"weight": Array(dtype, shape, "numpy.ndarray", data)})


@settings(max_examples=50)
@given(floats)
def test_arrays_arrive_bit_for_bit_in_process_and_as_bytes(values: np.ndarray) -> None:
    record = pack({"weight": values})
    sent = record["weight"]
    for array in (sent, pickle.loads(pickle.dumps(sent)), Array(values)):
        (got,) = unpack(ArrayRecord({"weight": array})).values()
        np.testing.assert_array_equal(got, values)
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(array.numpy(), values)


def test_in_another_process_it_is_flowers_own_array() -> None:
    """A site without fedtl's class, or with another version of it, could not read it otherwise."""
    there = pickle.loads(pickle.dumps(HostArray(np.ones((2, 3), np.float32))))
    assert type(there) is Array
    assert there.data == npy(np.ones((2, 3), np.float32))


def test_it_travels_in_flowers_own_wire_format() -> None:
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    content = RecordDict({"arrays": pack({"weight": np.arange(6, dtype=np.float32)})})
    contents = {k: v.deflate() for k, v in get_all_nested_objects(content).items()}
    there = inflate_object_from_contents(content.object_id, contents)
    np.testing.assert_array_equal(unpack(there.array_records["arrays"])["weight"], np.arange(6))


def reply_content(kind: type[RecordDict]) -> RecordDict:
    return kind({"arrays": pack({"weight": np.ones(3)}), "metrics": MetricRecord({"n": 2})})


def test_views_of_a_reply_are_flowers_own_before_and_after_changes() -> None:
    ours, theirs = reply_content(HostRecordDict), reply_content(RecordDict)
    for content in (ours, theirs):
        _ = content.array_records, content.metric_records
        content.array_records["more"] = pack({"bias": np.zeros(2)})  # as Flower's mods do
        content["again"] = MetricRecord({"m": 1.5})
        del content.array_records["arrays"]
        content["metrics"] = MetricRecord({"n": 3})
    assert list(ours) == list(theirs) == ["metrics", "more", "again"]
    assert list(ours.array_records) == list(theirs.array_records) == ["more"]
    assert dict(ours.metric_records) == dict(theirs.metric_records)
    assert ours.metric_records["metrics"]["n"] == 3
    with pytest.raises(TypeError):
        ours.array_records["metrics"] = MetricRecord({"n": 1})


def test_a_reply_ends_with_its_last_reader_and_not_with_the_garbage_collector() -> None:
    content = reply_content(HostRecordDict)
    _ = content.array_records, content.metric_records
    gone = weakref.ref(content)
    gc.disable()
    try:
        del content
        assert gone() is None
    finally:
        gc.enable()


def test_a_reply_is_flowers_own_in_another_process() -> None:
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    content = reply_content(HostRecordDict)
    contents = {k: v.deflate() for k, v in get_all_nested_objects(content).items()}
    sent = inflate_object_from_contents(content.object_id, contents)
    for there in (sent, pickle.loads(pickle.dumps(content))):
        assert type(there) is RecordDict
        assert there["metrics"] == content["metrics"]
        np.testing.assert_array_equal(unpack(there["arrays"])["weight"], np.ones(3))


def test_what_is_sent_cannot_be_changed_by_whoever_receives_it() -> None:
    """All sites of a cohort share the arrays of one message in process."""
    head = np.zeros((2, 3), np.float32)
    record = pack({"weight": head})
    with pytest.raises(ValueError, match="read-only"):
        unpack(record)["weight"][0] = 1
    record["weight"].numpy()[0] = 1  # Flower's own way gives a copy
    assert not head.any()
    head[0, 0] = 2  # its owner still may


@pytest.mark.parametrize("shape", [(), (5,), (128, 1280)])
def test_bytes_are_counted_without_serialising(shape: tuple[int, ...]) -> None:
    record = pack({"weight": np.zeros(shape, np.float32)})
    real = len(record["weight"].data)
    assert abs(count_bytes(record) - real) <= 64
    assert count_bytes(ArrayRecord({"weight": Array(np.zeros(shape, np.float32))})) == real


GOOD = npy(np.zeros((2, 3), np.float32))
HOSTILE = {
    "pickle": received(npy(np.array([{}, []], object), allow_pickle=True), shape=(2,)),
    "pickle under a false name": received(npy(np.array([print], object), allow_pickle=True)),
    "no header": received(b"\x00" * 24),
    "nothing": received(b""),
    "truncated header": received(GOOD[:20]),
    "truncated values": received(GOOD[:-1]),
    "more values": received(GOOD + b"\x00" * 4),
    "another shape": received(GOOD, shape=(3, 2)),
    "another type": received(GOOD, dtype="float64"),
    "integers": received(npy(np.zeros((2, 3), np.int32)), dtype="int32"),
    "half": received(npy(np.zeros((2, 3), np.float16)), dtype="float16"),
    "other byte order": received(npy(np.zeros((2, 3), ">f4"))),
    "huge": received(GOOD.replace(b"(2, 3)", b"(9**9,"[:6]), shape=(9**9,)),
    "huge in its header": received(GOOD.replace(b"(2, 3), }", b"(2**62,)}"), shape=(2**62,)),
    "wished-for shape": received(GOOD.replace(b"(2, 3)", b"(-1,) "), shape=(-1,)),
    "deep": received(GOOD.replace(b"(2, 3)", b"((((((")),
    "version 3": received(GOOD[:6] + b"\x03" + GOOD[7:]),
    "torch": ArrayRecord({"weight": Array("float32", (2, 3), "torch.tensor", GOOD)}),
    "code": received(GOOD.replace(b"(2, 3), }", b"exit(1)} ")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_arrays_are_refused_with_a_code(what: str) -> None:
    with pytest.raises(FedtlError) as error:
        unpack(HOSTILE[what])
    assert error.value.code == "message.invalid"


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_as_declared(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(GOOD)) | st.just(len(GOOD)))
    refused: list[FedtlError] = []
    values = np.zeros((2, 3), np.float32)
    try:
        values = unpack(received(bytes(damaged[:cut])))["weight"]
    except FedtlError as error:
        refused.append(error)
    assert [e.code for e in refused] in ([], ["message.invalid"])
    assert (values.shape, values.dtype) == ((2, 3), np.float32)
