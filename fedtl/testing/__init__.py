"""Whether a strategy is right: laws that every strategy should keep, tried on a real federation.

>>> from fedtl.testing import check_strategy
>>> report = check_strategy("fedavg")
>>> report["secure aggregation"].seen
'yes'

``fedtl check-strategy`` does the same from a terminal. The laws are in :mod:`fedtl.testing.laws`.
"""

from fedtl.testing.check import Check, check_strategy, checks, examine
from fedtl.testing.laws import LAWS, Law
from fedtl.testing.verdict import BrokenLaws, Report, Verdict

__all__ = [
    "LAWS",
    "BrokenLaws",
    "Check",
    "Law",
    "Report",
    "Verdict",
    "check_strategy",
    "checks",
    "examine",
]
