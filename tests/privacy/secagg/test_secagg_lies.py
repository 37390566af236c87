"""Servers that lie and sites that send nonsense: refused, with a code, and nothing revealed."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocol import identity, names, plain_sum, play, random_vectors, session

from fedtl.errors import PrivacyError
from fedtl.privacy import secagg
from fedtl.privacy.secagg import Identity, Secrets, Server, Session
from fedtl.privacy.secagg.codec import dump
from fedtl.privacy.secagg.graph import neighbourhoods
from fedtl.privacy.secagg.keys import Agreement
from fedtl.privacy.secagg.masks import add_mask
from fedtl.privacy.secagg.roster import read_advert


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(PrivacyError) as caught:
        act()
    return caught.value.code


def edited(body: bytes, edit: Callable[[Any], object]) -> bytes:
    value = json.loads(body)
    edit(value)
    return json.dumps(value).encode()


def fake_keys(this: Session, name: str) -> Any:
    """Return the keys of someone who calls himself by a site's name."""
    _, body = secagg.advertise(this, name, Identity.new())
    return json.loads(body)["keys"]


class TestKeys:
    """A server that wants to be a site's neighbour itself."""

    def heard(self, n: int = 4) -> tuple[Session, Secrets, bytes]:
        this = session(n)
        p, _ = play(this, random_vectors(n, 3), until="shares")
        return this, p.secrets["site-001"], p.heard["site-001"]

    def test_a_swapped_key_has_a_false_signature(self) -> None:
        this, secrets, roster = self.heard()
        fake = fake_keys(this, "site-002")
        for key in ("mask", "channel", "commitment"):

            def swap(value: Any, key: str = key) -> None:
                value["adverts"][2][key] = fake[key]

            body = edited(roster, swap)
            assert code_of(lambda b=body: secagg.share(secrets, b, {})) == "secagg.identity"

    def test_a_swapped_identity_is_not_the_one_known(self) -> None:
        this, secrets, roster = self.heard()

        def swap(value: Any) -> None:
            value["adverts"][2] = fake_keys(this, "site-002")

        known = {name: identity(name).public for name in names(4)}
        body = edited(roster, swap)
        assert code_of(lambda: secagg.share(secrets, body, known)) == "secagg.identity"
        pinned = secagg.share(secrets, roster, {})[2]
        assert pinned == known
        assert code_of(lambda: secagg.share(secrets, body, pinned)) == "secagg.identity"

    def test_an_unknown_name_is_refused_where_identities_are_listed(self) -> None:
        _, secrets, roster = self.heard()
        known = {name: identity(name).public for name in names(3)}
        act = lambda: secagg.share(secrets, roster, known, pin=False)  # noqa: E731
        assert code_of(act) == "secagg.identity"
        secagg.share(secrets, roster, known, pin=True)

    @pytest.mark.parametrize(
        ("edit", "code"),
        [
            (lambda v: v["adverts"].pop(1), "secagg.roster"),  # without the site itself
            (lambda v: v["adverts"].reverse(), "secagg.roster"),
            (lambda v: v["adverts"].append(v["adverts"][3]), "secagg.roster"),
            (lambda v: v["adverts"][1].update(mask=v["adverts"][0]["mask"]), "secagg.roster"),
            (lambda v: v.update(adverts=v["adverts"][:2]), "secagg.threshold"),
            (lambda v: v.update(adverts=7), "secagg.malformed"),
            (lambda v: v["adverts"][0].pop("mask"), "secagg.malformed"),
            (lambda v: v["adverts"][0].update(mask="AAAA"), "secagg.malformed"),
            (lambda v: v["adverts"][0].update(mask="no base64!"), "secagg.malformed"),
            (lambda v: v.update(more=1), "secagg.malformed"),
            (lambda v: v.update(session=b64encode(bytes(32)).decode()), "secagg.session"),
        ],
    )
    def test_a_roster_that_cannot_be(self, edit: Callable[[Any], object], code: str) -> None:
        _, secrets, roster = self.heard()
        assert code_of(lambda: secagg.share(secrets, edited(roster, edit), {})) == code

    def test_the_server_leaves_out_who_did_not_sign_and_goes_on(self) -> None:
        this = session(4)
        said = {n: secagg.advertise(this, n, identity(n))[1] for n in names(4)}
        said["site-003"] = edited(said["site-003"], lambda v: v["keys"].update(name="site-009"))
        server = Server(this)
        assert len(json.loads(server.roster(said))["adverts"]) == 3
        assert server.refused == {"site-003": "secagg.identity"}


class TestReplays:
    """A message of another session, or the same one for the second time."""

    def test_a_stage_is_answered_once(self) -> None:
        p, _ = play(session(3), random_vectors(3, 3), until="unmask")
        secrets, body = p.secrets["site-000"], p.heard["site-000"]
        one = identity("site-000")
        assert code_of(lambda: secagg.share(secrets, body, {})) == "secagg.stage"
        assert code_of(lambda: secagg.open_shares(secrets, body)) == "secagg.stage"
        assert code_of(lambda: secagg.mask(secrets, np.zeros(3, np.uint64))) == "secagg.stage"
        assert code_of(lambda: secagg.confirm(secrets, p.survivors, one)) == "secagg.stage"

    def test_messages_of_another_session_are_refused(self) -> None:
        first, _ = play(session(3), random_vectors(3, 3), until="unmask")
        rosters, _ = play(session(3), random_vectors(3, 3), until="shares")
        now, _ = play(session(3, number=2), random_vectors(3, 3), until="shares")
        fresh, old_roster = now.secrets["site-000"], rosters.heard["site-000"]
        assert code_of(lambda: secagg.share(fresh, old_roster, {})) == "secagg.session"
        boxes, _ = play(session(3), random_vectors(3, 3), until="masked")
        now, _ = play(session(3, number=2), random_vectors(3, 3), until="masked")
        shared, old_boxes = now.secrets["site-000"], boxes.heard["site-000"]
        assert code_of(lambda: secagg.open_shares(shared, old_boxes)) == "secagg.session"
        now, _ = play(session(3, number=2), random_vectors(3, 3), until="confirm")
        secrets = now.secrets["site-000"]
        one = identity("site-000")
        assert code_of(lambda: secagg.confirm(secrets, first.survivors, one)) == "secagg.session"
        signed, _ = secagg.confirm(secrets, now.survivors, one)
        old_signatures = first.heard["site-000"]
        assert code_of(lambda: secagg.reveal(signed, old_signatures)) == "secagg.session"
        renamed = edited(
            old_signatures,
            lambda v: v.update(session=b64encode(now.session.digest()).decode()),
        )
        assert code_of(lambda: secagg.reveal(signed, renamed)) == "secagg.inconsistent"


class TestSurvivors:
    """A server that wants both secrets of a site, so it tells one half that the site is lost."""

    def test_two_lists_of_survivors_are_noticed_before_anything_is_revealed(self) -> None:
        this = session(6)
        p, _ = play(this, random_vectors(6, 3), until="confirm")
        without = dump({"session": this.digest(), "names": names(5)})
        told = {name: without if at < 3 else p.survivors for at, name in enumerate(names(6))}
        signed, said = {}, {}
        for name in names(6):
            if name == "site-005":
                continue
            signed[name], said[name] = secagg.confirm(p.secrets[name], told[name], identity(name))
        signatures = {name: json.loads(body)["signature"] for name, body in said.items()}
        mixed = json.dumps(
            {"session": b64encode(this.digest()).decode(), "signatures": signatures}
        ).encode()
        for name in signed:
            act = lambda n=name: secagg.reveal(signed[n], mixed)  # noqa: E731
            assert code_of(act) == "secagg.inconsistent"

    def test_a_site_signs_one_list_only(self) -> None:
        this = session(6)
        p, _ = play(this, random_vectors(6, 3), until="unmask")
        fewer = dump({"session": this.digest(), "names": names(5)})
        secrets, one = p.secrets["site-000"], identity("site-000")
        assert code_of(lambda: secagg.confirm(secrets, fewer, one)) == "secagg.stage"

    @pytest.mark.parametrize(
        ("listed", "code"),
        [
            (names(6)[1:], "secagg.inconsistent"),  # without the site itself
            ([*names(6), "site-100"], None),  # a stranger is no neighbour and changes nothing
            (names(3), "secagg.threshold"),
            ([], "secagg.malformed"),
            ([*names(5), "site-004"], "secagg.malformed"),
        ],
    )
    def test_lists_that_cannot_be(self, listed: list[str], code: str | None) -> None:
        this = session(6)
        p, _ = play(this, random_vectors(6, 3), until="confirm")
        body = dump({"session": this.digest(), "names": listed})
        act = lambda: secagg.confirm(p.secrets["site-000"], body, identity("site-000"))  # noqa: E731
        if code is None:
            act()
        else:
            assert code_of(act) == code

    def test_a_survivor_that_never_shared_is_noticed(self) -> None:
        """Its masks are not in anyone's vector; only its own would hide it."""
        this = session(6)
        p, _ = play(this, random_vectors(6, 3), lost={"shares": ["site-005"]}, until="confirm")
        body = dump({"session": this.digest(), "names": names(6)})
        act = lambda: secagg.confirm(p.secrets["site-000"], body, identity("site-000"))  # noqa: E731
        assert code_of(act) == "secagg.inconsistent"

    def test_too_few_signatures_reveal_nothing(self) -> None:
        p, _ = play(session(6), random_vectors(6, 3), until="unmask")
        few = edited(p.heard["site-000"], lambda v: [v["signatures"].pop(n) for n in names(3)])
        assert code_of(lambda: secagg.reveal(p.secrets["site-000"], few)) == "secagg.threshold"

    def test_no_neighbour_has_both_its_secrets_revealed(self) -> None:
        p, _ = play(session(6), random_vectors(6, 3), lost={"masked": ["site-002"]}, until="unmask")
        for name, body in p.heard.items():
            said = json.loads(secagg.reveal(p.secrets[name], body))
            assert set(said["masks"]) == {"site-002"}
            assert set(said["seeds"]) == set(names(6)) - {"site-002"}


class TestSites:
    """Sites that send nonsense are left out by name, and the others go on."""

    def test_boxes_of_a_wrong_length_cost_the_site_its_place(self) -> None:
        this = session(6)
        p, _ = play(this, random_vectors(6, 3), until="shares")
        said = {}
        for name, roster in p.heard.items():
            p.secrets[name], said[name], _ = secagg.share(p.secrets[name], roster, {})
        said["site-001"] = edited(
            said["site-001"], lambda v: v["boxes"].update({"site-000": "AA=="})
        )
        said["site-002"] = edited(said["site-002"], lambda v: v["boxes"].pop("site-000"))
        boxes = p.server.boxes(said)
        assert set(boxes) == set(names(6)) - {"site-001", "site-002"}
        assert p.server.refused == dict.fromkeys(("site-001", "site-002"), "secagg.malformed")

    def test_a_box_that_does_not_open_is_refused_by_its_reader(self) -> None:
        p, _ = play(session(6), random_vectors(6, 3), until="masked")
        body = edited(
            p.heard["site-000"],
            lambda v: v["boxes"].update({"site-001": v["boxes"]["site-002"]}),
        )
        act = lambda: secagg.open_shares(p.secrets["site-000"], body)  # noqa: E731
        assert code_of(act) == "secagg.share"

    def test_vectors_of_a_wrong_length_or_kind_are_left_out(self) -> None:
        p, _ = play(session(9), random_vectors(9, 3), until="masked")
        for name, boxes in p.heard.items():
            opened = secagg.open_shares(p.secrets[name], boxes)
            p.secrets[name], p.masked[name] = secagg.mask(opened, np.zeros(3, np.uint64))
        p.masked["site-001"] = p.masked["site-001"][:2]
        p.masked["site-002"] = p.masked["site-002"].astype(np.float64)
        p.masked["site-003"] = p.masked["site-003"][None]
        p.server.collect(p.masked)
        assert set(p.server.survivors) == set(names(9)) - {"site-001", "site-002", "site-003"}
        assert set(p.server.refused.values()) == {"secagg.length"}

    def test_wrong_shares_are_found_and_done_without(self) -> None:
        vectors = random_vectors(6, 5)
        p, _ = play(session(6), vectors, lost={"masked": ["site-005"]}, until="unmask")
        said = {n: secagg.reveal(p.secrets[n], body) for n, body in p.heard.items()}

        def spoil(value: Any) -> None:
            value["seeds"]["site-001"] = b64encode(b"\x00" * 33).decode()
            value["masks"]["site-005"] = b64encode(b"\xff" * 33).decode()

        said["site-000"] = edited(said["site-000"], spoil)
        np.testing.assert_array_equal(p.server.total(said), plain_sum(vectors, p.server.survivors))
        said["site-001"] = edited(said["site-001"], spoil)
        assert code_of(lambda: p.server.total(said)) == "secagg.share"

    @given(st.binary(max_size=60) | st.just(b"[" * 100_000) | st.just(b'{"session": 1}'))
    def test_any_bytes_are_refused_and_never_crash(self, noise: bytes) -> None:
        this = session(3)
        secrets, _ = secagg.advertise(this, "site-000", identity("site-000"))
        assert code_of(lambda: secagg.share(secrets, noise, {})) == "secagg.malformed"
        assert code_of(lambda: Session.from_bytes(noise)) == "secagg.malformed"
        assert code_of(lambda: Secrets.from_bytes(noise)) == "secagg.malformed"
        server = Server(this)
        with pytest.raises(PrivacyError):
            server.roster(dict.fromkeys(names(3), noise))
        assert server.refused == dict.fromkeys(names(3), "secagg.malformed")


def test_a_key_of_low_order_is_refused() -> None:
    agreement = Agreement(b"k" * 32, bytes(32))
    assert code_of(lambda: agreement.key(bytes(32), "pair")) == "secagg.malformed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"threshold": 0.5}, "secagg.threshold"),
        ({"threshold": 1.01}, "secagg.threshold"),
        ({"invited": 1}, "secagg.too-few"),
        ({"bound": float("inf")}, "secagg.malformed"),
        ({"bound": -1.0}, "secagg.malformed"),
        ({"invited": True}, "secagg.malformed"),
        ({"run": 5}, "secagg.malformed"),
    ],
)
def test_sessions_that_cannot_be(changes: dict[str, object], code: str) -> None:
    assert code_of(lambda: session(3, **changes)) == code


def test_the_two_secrets_are_all_that_hides_a_vector() -> None:
    """The reason why nobody may reveal both: with them the masks come off a single vector."""
    vectors = random_vectors(3, 4)
    p, _ = play(session(3), vectors, until="confirm")
    secrets = p.secrets["site-001"]
    bare = p.masked["site-001"].copy()
    add_mask(bare, secagg.keys.derive(secrets.seed, p.session.digest(), "own"), sign=-1)
    agreement = Agreement(secrets.mask, p.session.digest())
    for other, sign in (("site-000", 1), ("site-002", -1)):
        key = secagg.client.pair_key(agreement, secrets.masks[other], secrets.roster)
        add_mask(bare, key, sign=sign)
    np.testing.assert_array_equal(bare, vectors["site-001"])


def test_neighbours_follow_from_the_keys_alone() -> None:
    """A site finds its own neighbours; there is nothing for a server to tell it."""
    this = session(60)
    p, _ = play(this, random_vectors(60, 2), until="masked")
    adverts = json.loads(play(this, random_vectors(60, 2), until="shares")[0].heard["site-000"])
    assert len([read_advert(a) for a in adverts["adverts"]]) == 60
    digest = p.secrets["site-007"].roster
    around = neighbourhoods(names(60), digest)["site-007"]
    assert p.secrets["site-007"].neighbours == around
