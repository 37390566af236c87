"""Everyone's public keys of one session, signed, as server and sites read them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtl.privacy.secagg.codec import as_bytes, as_name, dump, fields, refusal
from fedtl.privacy.secagg.keys import KEY_BYTES, SIGNATURE_BYTES, Identity, is_signed
from fedtl.privacy.secagg.session import Session


@dataclass(frozen=True, slots=True)
class Advert:
    """A site's public keys of one session.

    Attributes
    ----------
    channel, mask : bytes
        X25519 keys: for sealing shares, and for the masks with each neighbour.
    commitment : bytes
        Derived from the seed of the site's own mask, so that a seed put together from shares can be
        checked.
    identity, signature : bytes
        The Ed25519 key by which others know the site, and its signature under all of this.
    """

    name: str
    channel: bytes
    mask: bytes
    commitment: bytes
    identity: bytes
    signature: bytes = b""

    def signed(self, session: Session, identity: Identity) -> Advert:
        """Return it with the site's signature."""
        signature = identity.sign(self._text(session))
        return Advert(self.name, self.channel, self.mask, self.commitment, self.identity, signature)

    def is_genuine(self, session: Session) -> bool:
        """Say whether the owner of its identity signed it for this session."""
        return is_signed(self._text(session), self.signature, self.identity)

    def _text(self, session: Session) -> bytes:
        keys = self.channel + self.mask + self.commitment + self.identity
        return b"fedtl.secagg keys" + session.digest() + keys + self.name.encode()

    def plain(self) -> dict[str, Any]:
        """Return it as a part of a message."""
        return {field: getattr(self, field) for field in self.__dataclass_fields__}


_SIZES = {
    "channel": KEY_BYTES,
    "mask": KEY_BYTES,
    "commitment": KEY_BYTES,
    "identity": KEY_BYTES,
    "signature": SIGNATURE_BYTES,
}


def read_advert(plain: object) -> Advert:
    """Read one site's keys; anything else is refused."""
    if not isinstance(plain, dict) or set(plain) != {"name", *_SIZES}:
        raise refusal("malformed", "A site's public keys are not complete.")
    keys = {field: as_bytes(plain[field], size) for field, size in _SIZES.items()}
    return Advert(as_name(plain["name"]), **keys)


@dataclass(frozen=True, slots=True)
class Roster:
    """The keys of all sites that take part, in name order."""

    session: bytes
    adverts: tuple[Advert, ...]

    def names(self) -> tuple[str, ...]:
        """Return who takes part."""
        return tuple(advert.name for advert in self.adverts)

    def to_bytes(self) -> bytes:
        """Return it as it is sent; equal rosters are equal bytes."""
        return dump({"session": self.session, "adverts": [a.plain() for a in self.adverts]})

    def digest(self) -> bytes:
        """Return the 32 bytes that stand for this roster, and the session with it."""
        return hashlib.sha256(self.to_bytes()).digest()


def read_roster(body: bytes, session: Session) -> Roster:
    """Read a roster of this session; who is in it twice, or too few, is refused."""
    claimed, adverts = fields(body, "session", "adverts")
    check_session(claimed, session.digest())
    if not isinstance(adverts, list):
        raise refusal("malformed", "A roster is not a list of keys.")
    roster = Roster(session.digest(), tuple(read_advert(plain) for plain in adverts))
    names = roster.names()
    masks = {advert.mask for advert in roster.adverts}
    if list(names) != sorted(set(names)) or len(masks) < len(names):
        raise refusal("roster", "Two sites of a roster share a name or a key.")
    if not session.least() <= len(names) <= session.invited:
        raise refusal(
            "threshold",
            f"{len(names)} sites take part, {session.least()} to {session.invited} are needed.",
            "Wait for more sites, or lower transport.secure_threshold.",
        )
    return roster


def check_session(claimed: object, digest: bytes) -> None:
    """Refuse a message of another session."""
    if as_bytes(claimed, len(digest)) != digest:
        raise refusal("session", "A message belongs to another session of secure aggregation.")


def check_identities(
    adverts: Sequence[Advert], known: Mapping[str, bytes], *, pin: bool
) -> dict[str, bytes]:
    """Return the known identities and those of these sites.

    Parameters
    ----------
    known : mapping of str to bytes
        Site name to public identity.
    pin : bool
        Whether a name met for the first time is believed; otherwise it must be known.

    Raises
    ------
    PrivacyError
        With code ``secagg.identity``: somebody else's key under a known name, or an unknown name.
    """
    now = dict(known)
    for advert in adverts:
        before = now.get(advert.name, advert.identity if pin else b"")
        if before != advert.identity:
            raise refusal(
                "identity",
                f"The keys of {advert.name} are not signed by the {advert.name} known here.",
                "If it has a new identity, ask it by another way and list that one.",
            )
        now[advert.name] = advert.identity
    return now


def survivors_text(roster: bytes, survivors: Sequence[str]) -> bytes:
    """Return what a site signs to say for whom it answers."""
    listed = dump({"names": list(survivors)})
    return b"fedtl.secagg survivors" + roster + hashlib.sha256(listed).digest()
