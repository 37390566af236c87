"""The story of a cell: a run's story without a folder."""

from __future__ import annotations

from fedtl.launch.labels import Labels
from fedtl.launch.story import Story
from fedtl.rounds import State


class CellStory(Story):
    """A story that is told from its start to its end in one go, and writes nothing down."""

    def take_up(self) -> None:
        """Go to the start."""
        self.state = State(0, self.terms.initial_head(self.strategy))
        self.entries = []
        self.labels = None

    def remember(self) -> None:
        """Save nothing."""

    def remember_labels(self, labels: Labels) -> None:
        """Save nothing."""
