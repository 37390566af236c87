"""A canary in every text that belongs to a site, and a search for it in all that leaves one.

File names, patient ids, a label that the federation does not know, and the texts of exceptions
carry it. Every message is looked at as the bytes that Flower would send, and so is every file that
the server writes and every line that it logs.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message
from flwr.common.serde import message_to_proto
from flwr.serverapp import Grid
from PIL import Image
from sklearn.datasets import load_digits
from small import recipe
from toys import CANARY

from fedtl.apps.client import make_client_app
from fedtl.data import open_data
from fedtl.launch.federation import Sites, build
from fedtl.launch.simulate import Finished, simulate
from fedtl.recipe import Recipe
from fedtl.site.site import Site
from fedtl.train.fit import Examples
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import WrappedGrid

SITES = 4


class RecordingGrid(WrappedGrid):
    """Keeps every message in both directions as the bytes that Flower would send."""

    def __init__(self, inner: Grid, plant: Callable[[Message], Message] = lambda reply: reply):
        super().__init__(inner)
        self.wire: list[bytes] = []
        self._plant = plant

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        replies = [self._plant(r) for r in self.inner.send_and_receive(sent, timeout=timeout)]
        self.wire += [message_to_proto(m).SerializeToString() for m in (*sent, *replies)]
        return replies


def needles(text: str = CANARY) -> list[bytes]:
    """Return what a text looks like in the encodings that a file or a message might use."""
    raw = text.encode()
    forms = [raw, text.encode("utf-16-le"), text.encode("utf-16-be"), raw.hex().encode()]
    for shift in range(3):  # base64 of something around it, whose first and last letters vary
        encoded = base64.b64encode(bytes(shift) + raw)
        forms.append(encoded[-(-shift * 4 // 3) : -4])
    return forms


def leaks(data: bytes) -> bool:
    folded = data.lower()
    return any(form in data or form.lower() in folded for form in needles())


@contextmanager
def server_log() -> Iterator[list[logging.LogRecord]]:
    """Collect all that is logged, by Flower as well."""
    kept: list[logging.LogRecord] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler, loggers = Keeps(), [logging.getLogger(name) for name in ("", "flwr", "fedtl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield kept
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def written(records: Iterable[logging.LogRecord]) -> bytes:
    form = logging.Formatter("%(name)s %(message)s")
    return "\n".join(form.format(record) for record in records).encode()


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 96 pictures of 24 patients; one more file is empty."""
    folder = tmp_path_factory.mktemp("ward")
    digits = load_digits()
    lines = ["path,label,group"]
    for at in range(96):
        name = f"{CANARY}-{at}.png"
        picture = np.kron(digits.images[at] * 15, np.ones((2, 2))).astype(np.uint8)
        Image.fromarray(picture).save(folder / name)
        lines.append(f"{name},{digits.target[at] % 3},patient-{CANARY}-{at // 4}")
    (folder / f"{CANARY}-empty.png").touch()
    lines.append(f"{CANARY}-empty.png,0,patient-{CANARY}-99")
    (folder / "ward.csv").write_text("\n".join(lines))
    lines[1] = lines[1].replace(",0,", f",{CANARY}-label,")
    (folder / "other.csv").write_text("\n".join(lines))
    return folder / "ward.csv"


def chosen(ward: Path, **changes: Any) -> Recipe:
    values = {
        **{"data__source": str(ward), "data__limit": 0, "data__tolerate_unreadable": 1},
        **{"partition__kind": "group", "partition__sites": SITES, "privacy__unit": "group"},
    }
    return recipe(**values | changes)


def played(
    folder: Path,
    asked: Recipe,
    *,
    via: type[LocalGrid] = StackedGrid,
    plant: Callable[[Message], Message] = lambda reply: reply,
) -> tuple[Finished, list[bytes], list[logging.LogRecord]]:
    """Run a federation in which one site raises, and one has a label nobody knows."""
    federation = build(asked)
    site_of = Sites.of(federation, {}, folder.absolute())

    def broken() -> tuple[Examples, Examples]:
        raise RuntimeError(f"patient-{CANARY} at /secret/{CANARY}.png")

    def unknown() -> tuple[Examples, Examples]:
        other = Path(asked.data.source).with_name("other.csv")
        open_data(str(other), classes=federation.manifest.classes, tolerate_unreadable=1)
        raise AssertionError("a label that nobody knows must be refused")

    faults = dict(zip(federation.names[1:3], (broken, unknown), strict=True))

    def faulty(context: Context) -> Site:
        site = site_of(context)
        site.load = faults.get(site.name, site.load)
        return site

    app = make_client_app(faulty)
    grid: LocalGrid = (
        StackedGrid(app, federation.names, site_of=faulty)
        if via is StackedGrid
        else LocalGrid(app, federation.names)
    )
    recording = RecordingGrid(grid, plant)
    with server_log() as records:
        finished = simulate(asked, folder, html=True, grid=recording)
    site_of.close()
    return finished, recording.wire, records


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


SETTINGS: dict[str, dict[str, Any]] = {
    "clear": {"privacy__suppress_below": 0},
    "noised": {"privacy__metrics": "noised", "privacy__labels": "noised"},
    "off": {"privacy__metrics": "off", "strategy__name": "fed3r"},
    "plain": {"privacy__enabled": False},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("via", [LocalGrid, StackedGrid])
def test_no_text_of_a_site_gets_out(
    tmp_path: Path, ward: Path, setting: str, via: type[LocalGrid]
) -> None:
    finished, wire, records = played(tmp_path, chosen(ward, **SETTINGS[setting]), via=via)
    # the canary is alive: both sites failed by it, and their own logs name it
    codes = [s.failures for s in finished.result.sites]
    rounds = finished.result.rounds
    assert codes == [{}, {"site.failed": rounds}, {"data.classes": rounds}, {}]
    of_sites = [r for r in records if r.name == "fedtl.site"]
    assert leaks(written(of_sites))
    assert f"{CANARY}-label" in written(of_sites).decode()
    # and it stays there
    assert len(wire) >= 4 * SITES
    assert not [data for data in wire if leaks(data)]
    assert not leaks(written(r for r in records if r.name != "fedtl.site"))
    found = files(tmp_path)
    assert {"report.json", "report.html", "history.csv", "recipe.toml"} <= set(found)
    assert {Path(name).parts[0] for name in found} >= {"checkpoint", "module"}
    assert [name for name, data in found.items() if leaks(data)] == []


def test_files_left_out_are_counted_in_the_report_and_named_to_their_owner(
    tmp_path: Path, ward: Path
) -> None:
    finished, _, _ = played(tmp_path, chosen(ward))
    assert finished.result.problems == ["1 file left out: zero-byte"]
    assert json.loads((tmp_path / "report.json").read_text())["problems"] == [
        "1 file left out: zero-byte"
    ]
    assert "1 file left out: zero-byte" in (tmp_path / "report.html").read_text()
    assert [p.path for p in finished.problems] == [f"{CANARY}-empty.png"]


def in_a_reason(reply: Message) -> Message:
    if reply.has_error():
        reply.error = Error(0, f"Exception at /secret/{CANARY}")
    return reply


def in_a_record(reply: Message) -> Message:
    if reply.has_content() and reply.metadata.message_type == "train":
        reply.content["more"] = ConfigRecord({"path": f"/secret/{CANARY}.png".encode("utf-16-le")})
    return reply


@pytest.mark.parametrize("plant", [in_a_reason, in_a_record])
def test_a_site_that_tells_is_found_on_the_wire_and_not_written_down(
    tmp_path: Path, ward: Path, plant: Callable[[Message], Message]
) -> None:
    """The search finds what is there; and what a careless runtime sends goes no further."""
    asked = chosen(ward, privacy__suppress_below=0)
    finished, wire, records = played(tmp_path, asked, plant=plant)
    assert any(leaks(data) for data in wire)
    assert not leaks(written(r for r in records if r.name != "fedtl.site"))
    assert [name for name, data in files(tmp_path).items() if leaks(data)] == []
    assert finished.result.accuracy is not None


@pytest.mark.parametrize(
    "encoded",
    [
        f"x{CANARY}y".encode(),
        f"x{CANARY}y".encode("utf-16"),
        f"x{CANARY}y".encode("utf-16-be"),
        CANARY.upper().encode(),
        *(base64.b64encode(b"x" * n + CANARY.encode() + b"yz") for n in range(5)),
        CANARY.encode().hex().encode(),
        json.dumps({"a": [CANARY]}).encode(),
    ],
    ids=range(11),
)
def test_the_search_knows_the_usual_encodings(encoded: bytes) -> None:
    assert leaks(b"\x00\x01" + encoded + b"\xff")
    assert not leaks(encoded[:6])


def test_a_log_with_the_canary_is_found() -> None:
    with server_log() as records:
        logging.getLogger("flwr").info("at %s", CANARY)
        logging.getLogger("fedtl.rounds").debug("fine")
    assert leaks(written(records))
    assert not leaks(written(records[-1:]))
