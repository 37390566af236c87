"""The seal on a site's update: its masks, and its share of the noise that only a sum carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedtl.privacy.plan import Release
from fedtl.privacy.secagg import Secrets, Session, SharedNoise, encode, mask, open_shares, refusal
from fedtl.types import Update
from fedtl.wire.sealed import MASKED

if TYPE_CHECKING:
    from fedtl.train.streams import Streams
    from fedtl.wire.messages import Request


@dataclass
class Seal:
    """A site's place in one session of secure aggregation, between its shares and its vector.

    Attributes
    ----------
    secrets : Secrets
        After stage ``shares``; after :meth:`check` opened, and after :meth:`close` masked.
    boxes : bytes
        The neighbours' shares, as the server sent them.
    session_sent : bytes
        The session that the request names; it must be the one the site has keys for.
    additive : bool
        Whether a sum is asked for, not a mean.
    """

    secrets: Secrets
    boxes: bytes = field(repr=False)
    session_sent: bytes
    additive: bool

    @property
    def session(self) -> str:
        """What stands for the session in the site's ledger."""
        return self.secrets.session.digest().hex()

    def check(self, request: Request, release: Release | None) -> None:
        """Open the neighbours' shares, and refuse a session that does not fit the request.

        Raises
        ------
        PrivacyError
            With a code ``secagg.*``.
        """
        session = self.secrets.session
        asked = Session.from_bytes(self.session_sent)
        if asked != session or (session.round, session.additive) != (request.round, self.additive):
            raise refusal("session", "A request belongs to another session of secure aggregation.")
        if release is not None and release.honest_sites > session.least():
            raise refusal(
                "honest",
                f"The plan counts on the noise of {release.honest_sites} sites, and the session "
                f"goes on with {session.least()}.",
                "Lower privacy.honest_sites, or raise transport.secure_threshold.",
            )
        self.secrets = open_shares(self.secrets, self.boxes)

    def close(
        self,
        update: Update,
        release: Release | None,
        deviations: Mapping[str, float | NDArray[np.float64]],
        streams: Streams,
    ) -> Update:
        """Return the update as one masked vector.

        Parameters
        ----------
        release : Release or None
            Where it shares noise out, the site's share is added here; otherwise the update already
            carries all it needs.
        deviations : mapping of str to float or NDArray
            Deviation of the noise of the whole sum, by array.
        """
        noise = None
        if release is not None and release.honest_sites:
            noise = SharedNoise(
                deviations, release.noise_multiplier, release.honest_sites, streams.words
            )
        vector = encode(update.arrays, update.weight, self.secrets.session, noise)
        self.secrets, masked = mask(self.secrets, vector)
        return Update({MASKED: masked}, 1.0, update.releases)
