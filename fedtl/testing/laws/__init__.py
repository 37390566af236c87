"""The laws that a strategy has to keep, each a function whose docstring states it.

A law gets a :class:`~fedtl.testing.trial.Trial` and returns nothing, or a finding in words. It
raises :class:`~fedtl.testing.verdict.Broken` where it is broken, and
:class:`~fedtl.testing.verdict.DoesNotApply` where it has nothing to say.

================  =====================  ==========================================================
module            laws                   how they are found out
================  =====================  ==========================================================
``replies``       about single rounds    rounds that were written down once are played again, with
                                         the replies changed
``runs``          about whole runs       the real loop over real sites, on several Grids
``releases``      what it can take       differential privacy, secure aggregation, shared-out noise
================  =====================  ==========================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from fedtl.testing.laws import agreement, releases, replies, runs
from fedtl.testing.trial import Trial

Judge = Callable[[Trial], str | None]


@dataclass(frozen=True, slots=True)
class Law:
    """One law.

    Attributes
    ----------
    name : str
        What ``not_promised`` and reports call it.
    judge : callable
        Looks whether a trial's strategy keeps it.
    finding : bool
        Whether it is a question with any answer, and cannot be broken.
    """

    name: str
    judge: Judge
    finding: bool = False

    @property
    def says(self) -> str:
        """The law in one sentence: the first line of the function's docstring."""
        return (inspect.getdoc(self.judge) or "").partition("\n")[0]


_LAWS: tuple[Law, ...] = (
    Law("runs", runs.runs),
    Law("tensors", replies.tensors),
    Law("inputs", replies.inputs),
    Law("order", replies.order),
    Law("nothing", replies.nothing),
    Law("failures", replies.failures),
    Law("fixed point", agreement.fixed_point),
    Law("agreement", agreement.agreement),
    Law("weights", agreement.weights),
    Law("missing sites", runs.missing_sites),
    Law("bad replies", runs.bad_replies),
    Law("dropouts", runs.dropouts),
    Law("one site", runs.one_site),
    Law("repeat", runs.repeat),
    Law("node numbers", runs.node_numbers),
    Law("stacked", runs.stacked),
    Law("resume", runs.resume),
    Law("privacy", releases.privacy),
    Law("averages", agreement.averages, finding=True),
    Law("secure aggregation", releases.secure_aggregation, finding=True),
    Law("distributed noise", releases.distributed_noise, finding=True),
)
LAWS: dict[str, Law] = {law.name: law for law in _LAWS}
"""All laws and findings by name, in the order in which they are looked at."""
ON_REQUEST: dict[str, Law] = {"ray": Law("ray", runs.ray)}
"""Laws that are looked at only where they are asked for by name."""
