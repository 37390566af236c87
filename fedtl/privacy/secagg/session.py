"""What everybody agrees on before the first key is sent, and how a protocol is refused."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

from fedtl.errors import PrivacyError
from fedtl.privacy.secagg.codec import dump, fields, refusal

__all__ = ["LEAST_SITES", "Session", "least_sites", "refusal"]

LEAST_SITES = 2
"""The sum over one site is that site's vector."""


def least_sites(threshold: float, sites: int) -> int:
    """Return how many of some sites must stay to the end.

    Examples
    --------
    >>> least_sites(2 / 3, 10)
    7
    """
    return max(LEAST_SITES, math.ceil(threshold * sites - 1e-9))


@dataclass(frozen=True, slots=True)
class Session:
    """One aggregation. Its digest goes into every key, mask and signature.

    Attributes
    ----------
    run : str
        The run, as both ends know it.
    round : int
        The server's round.
    number : int
        Grows from session to session; a site answers each number once.
    invited : int
        Sites asked to take part, at least 2.
    threshold : float
        Share of sites, above one half and at most 1, that must be there to the end, among all
        invited and in each neighbourhood.
    bound : float
        Largest absolute value of an entry of a site's vector.
    additive : bool
        Whether sites send their values as they are, for a sum; otherwise times their weights, for
        a mean.
    """

    run: str
    round: int
    number: int
    invited: int
    threshold: float
    bound: float
    additive: bool = False

    def __post_init__(self) -> None:
        typed = (
            isinstance(self.run, str)
            and all(type(v) is int for v in (self.round, self.number, self.invited))
            and all(type(v) is float for v in (self.threshold, self.bound))
            and type(self.additive) is bool
        )
        if not typed or not (math.isfinite(self.bound) and self.bound > 0):
            raise refusal("malformed", f"{self!r:.200} is no session of secure aggregation.")
        if not 0.5 < self.threshold <= 1:
            raise refusal(
                "threshold",
                f"threshold = {self.threshold} is not above 0.5 and at most 1.",
                "More than half of the sites must stay, but never more than there are.",
            )
        if self.invited < LEAST_SITES:
            raise refusal(
                "too-few",
                f"{self.invited} site takes part; a sum hides nothing below {LEAST_SITES} sites.",
                "Let more sites take part in each round, or switch secure aggregation off.",
            )

    def digest(self) -> bytes:
        """Return the 32 bytes that stand for this session."""
        return hashlib.sha256(b"fedtl.secagg 1" + dump(asdict(self))).digest()

    def least(self, sites: int | None = None) -> int:
        """Return how many of ``sites`` (default: of those invited) must stay to the end."""
        return least_sites(self.threshold, self.invited if sites is None else sites)

    def to_bytes(self) -> bytes:
        """Return the session as it is sent."""
        return dump(asdict(self))

    @classmethod
    def from_bytes(cls, body: bytes) -> Session:
        """Read a session; anything else is refused."""
        values = fields(body, *cls.__dataclass_fields__)
        try:
            return cls(*values)
        except PrivacyError:
            raise
        except (TypeError, ValueError) as error:
            raise refusal("malformed", "The message carries no session.") from error
