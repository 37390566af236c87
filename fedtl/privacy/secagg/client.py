"""A site's side: five functions from what it remembers and is told to what it says.

Each checks everything it is told, refuses with a code ``secagg.*``, and can be called once only for
a session. What a site must never do is to reveal both secrets of one neighbour: whoever has both
can take all masks off that neighbour's vector.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from fedtl.errors import PrivacyError
from fedtl.privacy.secagg.codec import as_boxes, as_names, dump, fields, refusal
from fedtl.privacy.secagg.graph import neighbourhoods
from fedtl.privacy.secagg.keys import (
    BOX_OVERHEAD,
    KEY_BYTES,
    SIGNATURE_BYTES,
    Agreement,
    Identity,
    derive,
    is_signed,
    public_of,
    seal,
    unseal,
)
from fedtl.privacy.secagg.masks import Words, add_mask
from fedtl.privacy.secagg.roster import (
    Advert,
    check_identities,
    check_session,
    read_roster,
    survivors_text,
)
from fedtl.privacy.secagg.secrets import PAIR_BYTES, Secrets
from fedtl.privacy.secagg.session import Session
from fedtl.privacy.secagg.shamir import SHARE_BYTES, split

BOX_BYTES = PAIR_BYTES + BOX_OVERHEAD


def advertise(session: Session, name: str, identity: Identity) -> tuple[Secrets, bytes]:
    """Stage ``keys``: make the secrets of a session and return its public keys, signed."""
    channel, mask, seed = (os.urandom(KEY_BYTES) for _ in range(3))
    advert = Advert(
        name,
        public_of(channel),
        public_of(mask),
        derive(seed, session.digest(), "commitment"),
        identity.public,
    ).signed(session, identity)
    message = {"session": session.digest(), "keys": advert.plain()}
    return Secrets(session, name, "keys", channel, mask, seed), dump(message)


def share(
    secrets: Secrets, roster: bytes, known: Mapping[str, bytes], *, pin: bool = True
) -> tuple[Secrets, bytes, dict[str, bytes]]:
    """Stage ``shares``: check everyone's keys, share both secrets out and seal the shares.

    Parameters
    ----------
    roster : bytes
        What :meth:`Server.roster` returned.
    known : mapping of str to bytes
        Public identities by site name.
    pin : bool
        Whether unknown names are believed and remembered.

    Returns
    -------
    tuple
        The secrets, the message, and the identities known now.
    """
    session = secrets.after("keys").session
    everyone = read_roster(roster, session)
    around = neighbourhoods(everyone.names(), everyone.digest()).get(secrets.name, ())
    adverts = {a.name: a for a in everyone.adverts if a.name in around}
    own = adverts.get(secrets.name)
    if own is None or (own.channel, own.mask) != (
        public_of(secrets.channel),
        public_of(secrets.mask),
    ):
        raise refusal("roster", f"The roster does not carry the keys that {secrets.name} sent.")
    identities = check_identities(list(adverts.values()), known, pin=pin)
    for advert in adverts.values():
        if not advert.is_genuine(session):
            raise refusal("identity", f"The signature under the keys of {advert.name} is false.")
    secrets = replace(
        secrets,
        stage="shares",
        roster=everyone.digest(),
        channels={name: a.channel for name, a in adverts.items()},
        masks={name: a.mask for name, a in adverts.items()},
        identities={name: a.identity for name, a in adverts.items()},
    )
    parts = zip(
        split(secrets.mask, secrets.threshold, len(around)),
        split(secrets.seed, secrets.threshold, len(around)),
        strict=True,
    )
    pairs = {name: mask + seed for name, (mask, seed) in zip(around, parts, strict=True)}
    agreement = Agreement(secrets.channel, session.digest())
    boxes = {
        to: seal(agreement.key(adverts[to].channel, "box", secrets.name, to), pair)
        for to, pair in pairs.items()
        if to != secrets.name
    }
    message = dump({"session": session.digest(), "boxes": boxes})
    return replace(secrets, shares={secrets.name: pairs[secrets.name]}), message, identities


def open_shares(secrets: Secrets, boxes: bytes) -> Secrets:
    """Stage ``masked``, before training: open the neighbours' shares.

    Parameters
    ----------
    boxes : bytes
        What :meth:`Server.boxes` returned for this site.
    """
    session = secrets.after("shares").session
    claimed, sent = fields(boxes, "session", "boxes")
    check_session(claimed, session.digest())
    agreement = Agreement(secrets.channel, session.digest())
    shares = dict(secrets.shares)
    for sender, box in as_boxes(sent, BOX_BYTES).items():
        if sender not in secrets.channels or sender == secrets.name:
            raise refusal("roster", f"{sender} is no neighbour of {secrets.name}.")
        key = agreement.key(secrets.channels[sender], "box", sender, secrets.name)
        pair = unseal(key, box)
        if pair is None:
            raise refusal("share", f"The shares of {sender} are not sealed for {secrets.name}.")
        shares[sender] = pair
    if len(shares) < secrets.threshold:
        raise too_few(len(shares), secrets.threshold)
    return replace(secrets, stage="opened", shares=shares)


def mask(secrets: Secrets, vector: Words) -> tuple[Secrets, Words]:
    """Stage ``masked``: add the masks of all neighbours and the site's own, mod 2^64.

    Parameters
    ----------
    vector : NDArray
        ``[m]`` whole numbers, see :class:`fedtl.privacy.secagg.quantise.FixedPoint`.

    Returns
    -------
    tuple
        The secrets, and a new vector that looks random to whoever lacks any of its masks.
    """
    session = secrets.after("opened").session
    masked = vector.copy()
    add_mask(masked, derive(secrets.seed, session.digest(), "own"))
    agreement = Agreement(secrets.mask, session.digest())
    for other in secrets.shares:
        if other != secrets.name:
            sign = 1 if secrets.name < other else -1
            add_mask(masked, pair_key(agreement, secrets.masks[other], secrets.roster), sign=sign)
    return replace(secrets, stage="masked"), masked


def pair_key(agreement: Agreement, public: bytes, roster: bytes) -> bytes:
    """Derive the key of the mask that two neighbours share."""
    return agreement.key(public, "pair", roster.hex())


def confirm(secrets: Secrets, survivors: bytes, identity: Identity) -> tuple[Secrets, bytes]:
    """Stage ``confirm``: sign the list of sites whose vectors arrived, once."""
    session = secrets.after("masked").session
    claimed, listed = fields(survivors, "session", "names")
    check_session(claimed, session.digest())
    names = as_names(listed)
    alive = [name for name in names if name in secrets.masks]
    if secrets.name not in names or any(name not in secrets.shares for name in alive):
        raise refusal("inconsistent", "The list of survivors does not fit what was shared.")
    for there, least in ((len(alive), secrets.threshold), (len(names), session.least())):
        if there < least:
            raise too_few(there, least)
    signature = identity.sign(survivors_text(secrets.roster, names))
    message = dump({"session": session.digest(), "signature": signature})
    return replace(secrets, stage="confirm", survivors=names), message


def reveal(secrets: Secrets, signatures: bytes) -> bytes:
    """Stage ``unmask``: reveal one secret of each neighbour, if enough of them saw the same list.

    Forget the secrets afterwards: the session is over.

    Returns
    -------
    bytes
        A share of the seed of each neighbour that delivered, and of the mask key of each that did
        not.
    """
    digest = secrets.after("confirm").session.digest()
    claimed, sent = fields(signatures, "session", "signatures")
    check_session(claimed, digest)
    text, agreed = survivors_text(secrets.roster, secrets.survivors), 0
    for name, signature in as_boxes(sent, SIGNATURE_BYTES).items():
        identity = secrets.identities.get(name)
        if identity is None or name not in secrets.survivors:
            raise refusal("inconsistent", f"{name} has no say in what {secrets.name} reveals.")
        if not is_signed(text, signature, identity):
            raise refusal("inconsistent", f"{name} was told of other survivors.")
        agreed += 1
        if agreed == secrets.threshold:
            break
    if agreed < secrets.threshold:
        raise too_few(agreed, secrets.threshold)
    alive = set(secrets.survivors)
    seeds = {n: pair[SHARE_BYTES:] for n, pair in secrets.shares.items() if n in alive}
    masks = {n: pair[:SHARE_BYTES] for n, pair in secrets.shares.items() if n not in alive}
    return dump({"session": digest, "seeds": seeds, "masks": masks})


def too_few(there: int, least: int) -> PrivacyError:
    """Return the refusal of a session that has lost too many sites."""
    return refusal(
        "threshold",
        f"{there} sites are left and {least} are needed; nothing is revealed.",
        "Run again when more sites are up, or lower transport.secure_threshold.",
    )
