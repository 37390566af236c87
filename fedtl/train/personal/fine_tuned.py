"""Local fine-tuning of the global head."""

from __future__ import annotations

from fedtl.train.personal.personal import MOST_STEPS, Made, PersonalHead, Turn


class FineTuned(PersonalHead):
    """Go on from the global head, on the site's own examples only.

    Yu, Bagdasaryan, Shmatikov, "Salvaging Federated Learning by Local Adaptation", 2020,
    arXiv:2002.04758, section 3.1. Every turn begins anew from the global head; the number of steps
    is what keeps the personal head near it.

    Parameters
    ----------
    steps : int
        Of gradient descent.
    rate : float
        Factor on the federation's learning rate.
    """

    def __init__(self, *, steps: int = 20, rate: float = 1.0) -> None:
        if not 1 <= steps <= MOST_STEPS or not rate > 0:
            raise ValueError(
                f"steps = {steps}, rate = {rate}: steps is 1 to {MOST_STEPS}, rate above 0"
            )
        self.steps, self.rate = steps, rate

    def make(self, turn: Turn) -> Made:
        """Take some steps from the global head."""
        return Made([turn.fit(turn.head, steps=self.steps, rate=self.rate * turn.rate)])
