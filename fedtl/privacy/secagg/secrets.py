"""What a site must remember between the stages of one session."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedtl.privacy.secagg.codec import as_boxes, as_bytes, as_name, as_names, dump, fields, refusal
from fedtl.privacy.secagg.keys import KEY_BYTES
from fedtl.privacy.secagg.session import Session
from fedtl.privacy.secagg.shamir import SHARE_BYTES

PAIR_BYTES = 2 * SHARE_BYTES
"""A share of a mask key, then one of a seed."""

STAGES = ("keys", "shares", "opened", "masked", "confirm")
"""What a site has done last."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """A site's side of one session, after some stage.

    Attributes
    ----------
    stage : str
        One of :data:`STAGES`; no stage is gone through twice.
    channel, mask, seed : bytes
        Private X25519 keys and the seed of the site's own mask.
    roster : bytes
        Digest of the roster it was shown.
    sites : int
        How many sites are in it.
    channels, masks, identities : mapping of str to bytes
        Public keys of the neighbourhood, the site itself included.
    shares : mapping of str to bytes
        Shares of the neighbours' secrets, and of its own.
    survivors : tuple of str
        The list it signed.
    """

    session: Session
    name: str
    stage: str
    channel: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    roster: bytes = bytes(KEY_BYTES)
    channels: Mapping[str, bytes] = field(default_factory=dict)
    masks: Mapping[str, bytes] = field(default_factory=dict)
    identities: Mapping[str, bytes] = field(default_factory=dict)
    shares: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    survivors: tuple[str, ...] = ()

    @property
    def neighbours(self) -> tuple[str, ...]:
        """The neighbourhood, the site itself included, in name order."""
        return tuple(sorted(self.masks))

    @property
    def threshold(self) -> int:
        """How many of the neighbourhood must stay to the end."""
        return self.session.least(len(self.masks))

    def after(self, stage: str) -> Secrets:
        """Return itself if ``stage`` is what it has done last.

        Raises
        ------
        PrivacyError
            With code ``secagg.stage``: a message out of turn, or for the second time.
        """
        if self.stage != stage:
            raise refusal(
                "stage", f"A message asks for what follows '{stage}', but '{self.stage}' is done."
            )
        return self

    def to_bytes(self) -> bytes:
        """Return it for the site's own memory; this never leaves the site."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["session"] = self.session.to_bytes()
        values["survivors"] = list(self.survivors)
        return dump(values)

    @classmethod
    def from_bytes(cls, body: bytes) -> Secrets:
        """Read what :meth:`to_bytes` wrote."""
        read = dict(
            zip(cls.__dataclass_fields__, fields(body, *cls.__dataclass_fields__), strict=True)
        )
        if not isinstance(read["session"], str) or read["stage"] not in STAGES:
            raise refusal("malformed", "The remembered session is damaged.")
        return cls(
            session=Session.from_bytes(b64decode(read["session"])),
            name=as_name(read["name"]),
            stage=read["stage"],
            channel=as_bytes(read["channel"], KEY_BYTES),
            mask=as_bytes(read["mask"], KEY_BYTES),
            seed=as_bytes(read["seed"], KEY_BYTES),
            roster=as_bytes(read["roster"], KEY_BYTES),
            channels=as_boxes(read["channels"], KEY_BYTES),
            masks=as_boxes(read["masks"], KEY_BYTES),
            identities=as_boxes(read["identities"], KEY_BYTES),
            shares=as_boxes(read["shares"], PAIR_BYTES),
            survivors=as_names(read["survivors"]) if read["survivors"] else (),
        )
