"""What an audit found: a frozen value, written as ``audit.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from fedtl.audit.certify import Certified


@dataclass(frozen=True, slots=True)
class Membership:
    """What shadow heads could tell about who was a member; see :mod:`fedtl.audit.lira`.

    Attributes
    ----------
    auc, auc_offline : float
        Areas under the ROC curves of the online and of the offline attack; 0.5 is chance.
    tpr_at_01, tpr_at_1 : float
        Share of members that the online attack finds at 0.1 % and at 1 % false alarms.
    fpr, tpr : list of float
        The online attack's ROC curve, thinned.
    """

    shadows: int
    examples: int
    auc: float
    auc_offline: float
    tpr_at_01: float
    tpr_at_1: float
    fpr: list[float]
    tpr: list[float]


@dataclass(frozen=True, slots=True)
class Inversion:
    """What updates on single examples gave away, raw and as they are released.

    Attributes
    ----------
    raw_error, released_error : float
        Median distance of the features found from the true ones, relative to the latter's length;
        None where it is beyond all bounds.
    raw_found, released_found : float
        Share of examples found out, to within a tenth of their length.
    raw_labels, released_labels : float
        Share of labels found out.
    """

    examples: int
    raw_error: float | None
    raw_found: float
    raw_labels: float
    released_error: float | None
    released_found: float
    released_labels: float


@dataclass(frozen=True, slots=True)
class SumsAudit:
    """What was proved about sums that a plan releases beside gradients.

    Attributes
    ----------
    mechanism : str
        Such as ``covariance``.
    epsilon : float
        What the plan claims for it alone.
    certified : Certified
        Lower bounds.
    """

    mechanism: str
    epsilon: float
    certified: Certified

    @property
    def broken(self) -> bool:
        """Whether a bound exceeds the claim."""
        return self.certified.highest > self.epsilon


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The promise of a run beside what attacks have proved.

    Attributes
    ----------
    plan : str
        The privacy plan in words; empty without privacy.
    epsilon : float or None
        What the plan claims over all releases of the mechanism; None without privacy.
    delta : float
        At which everything here holds.
    site : str
        The simulated site whose records stood around the canaries.
    certified : Certified
        Lower bounds on epsilon.
    significance : float
        Probability, at most, with which an intact mechanism shows a bound above its claim.
    sums : list of SumsAudit
        The other releases of the plan.
    membership, inversion : optional
        None where the plan releases statistics, from which no head gradient can be taken.
    seconds : dict of str to float
        By phase.
    """

    name: str
    version: str
    plan: str
    epsilon: float | None
    delta: float
    site: str
    mechanism: str
    canaries: int
    certified: Certified
    significance: float
    membership: Membership | None
    inversion: Inversion | None
    seed: int
    seconds: dict[str, float]
    sums: list[SumsAudit] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether a lower bound exceeds the claim: the promise is not kept."""
        here = self.epsilon is not None and self.certified.highest > self.epsilon
        return here or any(part.broken for part in self.sums)

    def to_json(self) -> str:
        """Return the result as JSON, the verdict with it."""
        return json.dumps({**asdict(self), "broken": self.broken}, indent=1)
