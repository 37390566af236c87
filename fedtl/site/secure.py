"""A site's answers in the stages of secure aggregation, and what it remembers between them.

Between messages a site may be another process, so it remembers in Flower's ``Context.state``, which
stays at the site: its secrets of the session and what it said in it, and for the whole run its
identity, the identities of others that it met, and the number of the last session, so that no older
one is answered.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Context, RecordDict

from fedtl.privacy.secagg import (
    Identity,
    Secrets,
    Session,
    advertise,
    confirm,
    refusal,
    reveal,
    share,
)
from fedtl.site.seal import Seal
from fedtl.site.site import Site
from fedtl.wire.messages import ADDITIVE
from fedtl.wire.sealed import CONFIRM, KEYS, REVEAL, SHARES, read_sealed

_STATE, _KNOWN, _SAID = "secagg", "secagg.known", "secagg.said"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a site remembers; empty before its first session."""

    identity: Identity
    number: int = 0
    secrets: Secrets | None = None

    @classmethod
    def of(cls, site: Site, context: Context) -> Remembered:
        """Read it, or begin."""
        record = context.state.get(_STATE)
        if not isinstance(record, ConfigRecord):
            return cls(site.identity or Identity.new())
        identity, number, secrets = record["identity"], record["number"], record["secrets"]
        if not (
            isinstance(identity, bytes) and isinstance(number, int) and isinstance(secrets, bytes)
        ):
            raise refusal("malformed", "What the site remembered of its session is damaged.")
        return cls(
            site.identity or Identity(identity),
            number,
            Secrets.from_bytes(secrets) if secrets else None,
        )

    def session(self) -> Secrets:
        """Return the secrets of the session that is going on.

        Raises
        ------
        PrivacyError
            With code ``secagg.stage``: there is none.
        """
        if self.secrets is None:
            raise refusal("stage", "A message belongs to a session that this site does not know.")
        return self.secrets

    def keep(self, context: Context) -> None:
        """Write it."""
        context.state[_STATE] = ConfigRecord(
            {
                "identity": self.identity.private,
                "number": self.number,
                "secrets": self.secrets.to_bytes() if self.secrets else b"",
            }
        )


def answer_stage(kind: str, body: bytes, site: Site, context: Context) -> bytes:
    """Answer a message of a stage other than ``masked``; one that comes again, as it was before.

    A server that was restarted asks again what it has lost, and learns nothing new by that.

    Raises
    ------
    PrivacyError
        With a code ``secagg.*``: whatever is out of turn, false or malformed.
    """
    record = context.state.get(_SAID)
    said = dict(record.items()) if isinstance(record, ConfigRecord) else {}
    asked = hashlib.sha256(f"{kind} ".encode() + body).hexdigest()
    if isinstance(before := said.get(asked), bytes):
        return before
    memory = Remembered.of(site, context)
    if kind == KEYS:
        said = {}
        session = Session.from_bytes(body)
        if session.number <= memory.number:
            raise refusal("replayed", "This session, or a later one, was answered before.")
        secrets, message = advertise(session, site.name, memory.identity)
        memory = replace(memory, number=session.number, secrets=secrets)
    elif kind == SHARES:
        known = _known(site, context)
        secrets, message, known = share(memory.session(), body, known, pin=site.trusted is None)
        context.state[_KNOWN] = ConfigRecord(dict(known))
        memory = replace(memory, secrets=secrets)
    elif kind == CONFIRM:
        secrets, message = confirm(memory.session(), body, memory.identity)
        memory = replace(memory, secrets=secrets)
    elif kind == REVEAL:
        message = reveal(memory.session(), body)
        memory = replace(memory, secrets=None)
    else:
        raise refusal("malformed", f"'{kind}' is no stage of secure aggregation.")
    memory.keep(context)
    context.state[_SAID] = ConfigRecord({**said, asked: message})
    return message


def seal_of(content: RecordDict, kind: str, site: Site, context: Context) -> Seal | None:
    """Return the seal that a request asks for; None if it asks for none."""
    asked = read_sealed(content)
    if asked is None:
        return None
    session, boxes = asked
    secrets = Remembered.of(site, context).session()
    return Seal(secrets, boxes, session, additive=kind in ADDITIVE)


def remember_sealed(seal: Seal, site: Site, context: Context) -> None:
    """Write what follows from a seal: a vector is masked once in a session."""
    replace(Remembered.of(site, context), secrets=seal.secrets).keep(context)


def _known(site: Site, context: Context) -> dict[str, bytes]:
    """Return the public identities of other sites: those the site lists, or has met in this run."""
    if site.trusted is not None:
        return dict(site.trusted)
    record = context.state.get(_KNOWN)
    met = record.items() if isinstance(record, ConfigRecord) else ()
    return {name: value for name, value in met if isinstance(value, bytes)}
