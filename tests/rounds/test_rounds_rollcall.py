"""Who can take part in a run, and what is said of those who cannot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedtl import __version__
from fedtl.rounds.rollcall import Roll, Wanted, call_roll
from fedtl.transport.local import LocalGrid
from fedtl.types import Description
from fedtl.wire.messages import description_reply

CLASSES = ("benign", "malignant")
WANTED = Wanted("digest", 9, CLASSES)
GOOD = Description("", CLASSES, "digest", 9, __version__)


@dataclass
class Sites:
    """What each node says of itself: a description, a failure code, or nonsense."""

    told: list[Description | str | None] = field(default_factory=list)

    def roll(self, wanted: Wanted = WANTED, enrolled: list[str] | None = None) -> Roll:
        app = ClientApp()

        @app.query("describe")
        def describe(message: Message, context: Context) -> Message:
            said = self.told[int(context.node_config["partition-id"])]
            if isinstance(said, str):
                return Message(Error(code=1, reason=said), reply_to=message)
            if said is None:
                return Message(RecordDict({"x": ConfigRecord({"y": 1})}), reply_to=message)
            return description_reply(message, said)

        names = [f"site-{at}" for at in range(len(self.told))]
        grid = LocalGrid(app, names)
        return call_roll(
            grid, dict(zip(grid.get_node_ids(), enrolled or [""] * len(names), strict=True)), wanted
        )


def named(name: str, **changes: object) -> Description:
    return replace(GOOD, name=name, **changes)  # type: ignore[arg-type]


def test_those_who_agree_take_part_in_name_order() -> None:
    roll = Sites([named("south"), named("north")]).roll()
    assert list(roll.names.values()) == ["north", "south"]
    assert roll.classes == CLASSES
    assert not roll.left_out
    assert not roll.coming


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "0.9.1"}, "runs fedtl 0.9.1, and the server"),
        ({"classes": ("malignant", "benign")}, "malignant, benign"),
        ({"width": 10}, "10 features per example, and the run needs 9"),
        ({"state": "data.unreadable"}, "cannot take part (data.unreadable)"),
    ],
)
def test_who_differs_is_named_with_what_differs(changes: dict[str, object], said: str) -> None:
    roll = Sites([named("north", **changes), named("south")]).roll()
    assert said in roll.left_out["north"]
    assert list(roll.names.values()) == ["south"]


def test_neighbouring_versions_work_together() -> None:
    major, minor, *_ = __version__.split(".")
    roll = Sites([named("north", version=f"{major}.{minor}.999")]).roll()
    assert list(roll.names.values()) == ["north"]


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "another"},
        {"state": "no backbone", "backbone": "", "width": 0},
        {"state": "preparing"},
        {"state": "preparing", "backbone": "another", "classes": ()},
    ],
)
def test_who_lacks_the_backbone_or_its_features_is_waited_for(changes: dict[str, object]) -> None:
    roll = Sites([named("north", **changes), named("south")]).roll()
    assert [d.name for d in roll.coming.values()] == ["north"]
    assert not roll.left_out


def test_without_classes_in_the_recipe_those_of_most_sites_hold() -> None:
    others = ("a", "b", "c")
    told = [named("a", classes=others), named("b"), named("c")]
    roll = Sites(list(told)).roll(replace(WANTED, classes=()))
    assert roll.classes == CLASSES
    assert "a, b, c" in roll.left_out["a"]


def test_a_name_that_two_sites_use_is_nobodys() -> None:
    roll = Sites([named("north"), named("north"), named("south")]).roll()
    assert list(roll.names.values()) == ["south"]
    assert roll.left_out == {"north": "2 sites have this name"}


def test_the_key_decides_whose_name_it_is() -> None:
    roll = Sites([named("north"), named("north")]).roll(enrolled=["north", "south"])
    assert list(roll.names.values()) == ["north"]
    assert roll.left_out == {"south": "calls itself 'north', but its key is 'south'"}


def test_who_says_nothing_that_can_be_read_is_named_by_key_or_node() -> None:
    roll = Sites(["agent.unavailable", None, named("north")]).roll(enrolled=["east", "", "north"])
    assert "agent.unavailable" in roll.left_out["east"]
    assert "message.invalid" in roll.left_out["node 1001"]
    assert list(roll.names.values()) == ["north"]
