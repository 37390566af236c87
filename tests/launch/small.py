"""Small runs on real pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from fedtl.apps.client import make_client_app
from fedtl.launch.federation import Sites, build
from fedtl.launch.simulate import Finished, simulate
from fedtl.recipe import Recipe, load_recipe
from fedtl.transport.stacked import StackedGrid

SMALL: dict[str, Any] = {
    "data.limit": 160,
    "backbone.image_size": 32,
    "partition.sites": 3,
    "train.rounds": 2,
    "train.local_steps": 2,
    "compare.local_only": False,
    "compare.without_privacy": False,
}


def recipe(**changes: Any) -> Recipe:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return load_recipe(None, {**SMALL, **named})


def run(folder: Path, chosen: Recipe | None = None, **options: Any) -> Finished:
    return simulate(chosen or recipe(), folder, html=False, **options)


NOISED: dict[str, Any] = {"privacy__metrics": "noised", "partition__kind": "iid"}


class Recording(StackedGrid):
    """A Grid that remembers what its sites answered."""

    replies: list[Message]

    def answer(self, messages: Any, deadline: float | None) -> list[Message]:
        found = super().answer(messages, deadline)
        self.__dict__.setdefault("replies", []).extend(found)
        return found

    def of(self, kind: str) -> list[Message]:
        return [r for r in self.replies if r.metadata.message_type == kind]


def recorded(chosen: Recipe) -> Recording:
    federation = build(chosen)
    site_of = Sites.of(federation, {})
    return Recording(make_client_app(site_of), federation.names, site_of=site_of)


def stopped(folder: Path, chosen: Recipe, after: int) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase == "rounds" and done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, chosen, progress=stop)


def report(folder: Path) -> dict[str, Any]:
    """Return the report without what is never twice the same."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    for name in ("created", "seconds", "extraction"):
        del found[name]
    for round_ in found["history"]:
        for name in [key for key in round_ if key.startswith("seconds")]:
            del round_[name]
    return found
