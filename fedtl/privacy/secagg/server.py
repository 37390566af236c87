"""The server's side: it passes keys and boxes on, adds vectors, and takes the masks off the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations, islice
from typing import TypeVar

import numpy as np

from fedtl.errors import PrivacyError
from fedtl.privacy.secagg.client import BOX_BYTES, pair_key, too_few
from fedtl.privacy.secagg.codec import as_boxes, as_bytes, dump, fields, refusal
from fedtl.privacy.secagg.graph import neighbourhoods
from fedtl.privacy.secagg.keys import SIGNATURE_BYTES, Agreement, derive, is_signed, public_of
from fedtl.privacy.secagg.masks import Words, add_mask
from fedtl.privacy.secagg.roster import (
    Advert,
    Roster,
    check_session,
    read_advert,
    survivors_text,
)
from fedtl.privacy.secagg.session import Session
from fedtl.privacy.secagg.shamir import SHARE_BYTES, combine

Read = TypeVar("Read")

_ATTEMPTS = 256
"""Sets of shares that are tried when some of them are wrong."""


class Server:
    """One session, stage after stage: each method takes what sites sent, by name.

    A site that does not answer, or not as it should, is left behind; the reason is in
    :attr:`refused`. If too few are left, the session ends with code ``secagg.threshold``: the sites
    then refuse to reveal anything, whatever the server says.

    Attributes
    ----------
    refused : dict of str to str
        Site name to code, for those whose messages could not be used.
    survivors : tuple of str
        Sites whose vectors are in the sum.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.refused: dict[str, str] = {}
        self.survivors: tuple[str, ...] = ()
        self._digest = session.digest()
        self._adverts: dict[str, Advert] = {}
        self._around: dict[str, tuple[str, ...]] = {}
        self._roster = b""
        self._shared: set[str] = set()
        self._sum: Words | None = None
        self._signed: dict[str, bytes] = {}

    def roster(self, keys: Mapping[str, bytes]) -> bytes:
        """Stage ``keys``: return the roster for every site that sent its keys."""
        self._adverts = dict(self._read(keys, self._advert))
        self._check(len(self._adverts), self.session.least())
        roster = Roster(self._digest, tuple(self._adverts[n] for n in sorted(self._adverts)))
        self._roster = roster.digest()
        self._around = neighbourhoods(roster.names(), self._roster)
        return roster.to_bytes()

    def _advert(self, name: str, body: bytes) -> Advert:
        claimed, plain = fields(body, "session", "keys")
        check_session(claimed, self._digest)
        advert = read_advert(plain)
        if advert.name != name or not advert.is_genuine(self.session):
            raise refusal("identity", f"{name} sent keys that it did not sign.")
        return advert

    def boxes(self, shares: Mapping[str, bytes]) -> dict[str, bytes]:
        """Stage ``shares``: return for every site that shared the boxes addressed to it."""
        sent = dict(self._read(shares, self._boxes))
        self._shared = set(sent)
        self._check_neighbourhoods(self._shared)
        return {
            name: dump({"session": self._digest, "boxes": self._addressed(sent, name)})
            for name in sent
        }

    def _addressed(self, sent: Mapping[str, Mapping[str, bytes]], to: str) -> dict[str, bytes]:
        return {n: sent[n][to] for n in self._around[to] if n in sent and n != to}

    def _boxes(self, name: str, body: bytes) -> dict[str, bytes]:
        claimed, sent = fields(body, "session", "boxes")
        check_session(claimed, self._digest)
        boxes = as_boxes(sent, BOX_BYTES)
        if name not in self._around or set(boxes) != set(self._around[name]) - {name}:
            raise refusal("malformed", f"{name} shared with others than its neighbours.")
        return boxes

    def collect(self, vectors: Mapping[str, Words]) -> bytes:
        """Stage ``masked``: add the vectors and return the list of survivors to be confirmed.

        A vector of another length than most is left out.
        """
        lengths = [v.shape for v in vectors.values() if v.dtype == np.uint64 and v.ndim == 1]
        shape = max(set(lengths), key=lengths.count, default=(0,))
        survivors = []
        for name, vector in vectors.items():
            if vector.dtype != np.uint64 or vector.shape != shape:
                self.refused[name] = "secagg.length"
            elif name in self._shared:
                survivors.append(name)
        self._check_neighbourhoods(set(survivors))
        self.survivors = tuple(sorted(survivors))
        self._sum = np.zeros(shape, np.uint64)
        for name in self.survivors:
            self._sum += vectors[name]
        return dump({"session": self._digest, "names": list(self.survivors)})

    def signatures(self, confirmed: Mapping[str, bytes]) -> dict[str, bytes]:
        """Stage ``confirm``: return for every site that confirmed its neighbours' signatures."""
        self._signed = dict(self._read(confirmed, self._signature))
        self._check_neighbourhoods(set(self._signed))
        out = {}
        for name in self._signed:
            around = {n: self._signed[n] for n in self._around[name] if n in self._signed}
            out[name] = dump({"session": self._digest, "signatures": around})
        return out

    def _signature(self, name: str, body: bytes) -> bytes:
        claimed, plain = fields(body, "session", "signature")
        check_session(claimed, self._digest)
        signature = as_bytes(plain, SIGNATURE_BYTES)
        text = survivors_text(self._roster, self.survivors)
        if name not in self.survivors or not is_signed(
            text, signature, self._adverts[name].identity
        ):
            raise refusal("inconsistent", f"{name} signed for other survivors.")
        return signature

    def total(self, revealed: Mapping[str, bytes]) -> Words:
        """Stage ``unmask``: put the masks together from their shares and take them off the sum.

        Returns
        -------
        NDArray
            ``[m]`` sum of the survivors' vectors mod 2^64, exactly.
        """
        shares = dict(self._read(revealed, self._reveal))
        self._check_neighbourhoods(set(shares))
        if self._sum is None:
            raise refusal("stage", "There is no sum to take masks off.")
        total = self._sum.copy()
        for name in self.survivors:
            seed = self._recover(name, {n: s[0] for n, s in shares.items()}, self._is_seed)
            add_mask(total, derive(seed, self._digest, "own"), sign=-1)
        for lost in sorted(self._shared.difference(self.survivors)):
            beside = [n for n in self._around[lost] if n in self.survivors]
            if not beside:
                continue
            key = self._recover(lost, {n: s[1] for n, s in shares.items()}, self._is_mask_key)
            agreement = Agreement(key, self._digest)
            for name in beside:
                pair = pair_key(agreement, self._adverts[name].mask, self._roster)
                add_mask(total, pair, sign=-1 if name < lost else 1)
        return total

    def _reveal(self, name: str, body: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
        claimed, seeds, masks = fields(body, "session", "seeds", "masks")
        check_session(claimed, self._digest)
        return as_boxes(seeds, SHARE_BYTES), as_boxes(masks, SHARE_BYTES)

    def _is_seed(self, name: str, seed: bytes) -> bool:
        return derive(seed, self._digest, "commitment") == self._adverts[name].commitment

    def _is_mask_key(self, name: str, key: bytes) -> bool:
        return public_of(key) == self._adverts[name].mask

    def _recover(
        self,
        name: str,
        shares: Mapping[str, Mapping[str, bytes]],
        is_right: Callable[[str, bytes], bool],
    ) -> bytes:
        """Put a site's secret together; wrong shares are told by the public half of the secret."""
        around = self._around[name]
        points = {
            at: shares[by][name]
            for at, by in enumerate(around, 1)
            if by in shares and name in shares[by]
        }
        least = self.session.least(len(around))
        self._check(len(points), least)
        for chosen in islice(combinations(points, least), _ATTEMPTS):
            try:
                secret = combine({at: points[at] for at in chosen})
            except PrivacyError:
                continue
            if is_right(name, secret):
                return secret
        raise refusal(
            "share",
            f"The revealed shares of {name} do not give back its secret.",
            "A site sends wrong shares; the round cannot be finished with it.",
        )

    def _read(
        self, bodies: Mapping[str, bytes], read: Callable[[str, bytes], Read]
    ) -> Iterable[tuple[str, Read]]:
        for name, body in bodies.items():
            try:
                yield name, read(name, body)
            except PrivacyError as error:
                self.refused[name] = error.code

    def _check_neighbourhoods(self, alive: set[str]) -> None:
        """End the session if anyone's secrets could no longer be put together."""
        self._check(len(alive), self.session.least())
        for name in alive:
            around = self._around[name]
            self._check(sum(n in alive for n in around), self.session.least(len(around)))

    def _check(self, there: int, least: int) -> None:
        if there < least:
            raise too_few(there, least)
