"""The personal head of FedPer and FedRep: what the site kept of its last training."""

from __future__ import annotations

from fedtl.train.personal.personal import Made, PersonalHead, Turn


class OwnLayer(PersonalHead):
    """The global layers below the site's own last one.

    The layer was trained by the steps that the plan covers, so its results may be told with noise.
    What is kept here is what :class:`fedtl.train.objectives.own_layer.OwnLayer` kept when it
    trained.
    """

    private = True

    def make(self, turn: Turn) -> Made:
        """Put the layers together."""
        return Made([{**turn.head, **turn.kept}])
