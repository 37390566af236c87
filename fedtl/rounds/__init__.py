"""The server's story: rounds of a strategy over a Grid, whichever Grid that is."""

from fedtl.rounds.record import RoundRecord, Settings
from fedtl.rounds.run import Outcome, State, run

__all__ = ["Outcome", "RoundRecord", "Settings", "State", "run"]
