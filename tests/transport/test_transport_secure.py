"""Secure aggregation over Flower's messages: the same head, and nobody's update to be seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid
from toys import NAMES, WIDTH, Toys, toy_plan, toy_release

from fedtl.apps.client import make_client_app
from fedtl.errors import CacheError, PrivacyError, TransportError
from fedtl.privacy.ledger import DataSet, Ledger
from fedtl.privacy.plan import PrivacyPlan
from fedtl.privacy.secagg import Session, least_sites
from fedtl.rounds import Outcome, Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.site.policy import SitePolicy
from fedtl.strategies import make_strategy
from fedtl.train.additive import shapes
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport._identity import with_content
from fedtl.transport.journal import MOST_TRIES, Journal
from fedtl.transport.local import LocalGrid
from fedtl.transport.secure import SecureAggregationGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.transport.wrappers import MeteredGrid, WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import EVALUATE, STATISTICS, TRAIN, records, task_config
from fedtl.wire.sealed import CONFIRM, KEYS, MASKED, REVEAL, SHARES, stage_content

HEAD = initial_head("linear", WIDTH, 3)
SHAPES = {name: values.shape for name, values in HEAD.items()}
STAGES = (KEYS, SHARES, TRAIN, CONFIRM, REVEAL)
BY_STAGE = pytest.mark.parametrize("stage", STAGES)


@dataclass
class Spied(WrappedGrid):
    """Keeps every message, and changes or loses the answers of some sites in some stage."""

    inner: Grid
    names: Mapping[int, str]
    stage: str = ""
    who: Collection[str] = ()
    change: Callable[[Message], Message | None] = lambda reply: None
    sent: list[Message] = field(default_factory=list)
    answered: list[Message] = field(default_factory=list)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        self.sent += sent
        for reply in self.inner.send_and_receive(sent, timeout=timeout):
            self.answered.append(reply)
            hit = self.names[reply.metadata.src_node_id] in self.who
            if hit and reply.metadata.message_type == self.stage:
                changed = self.change(reply)
                if changed is not None:
                    yield changed
            else:
                yield reply


def nodes(grid: Grid) -> dict[int, str]:
    return {node: d.name for node, d in describe_sites(grid).items()}


def spied(toys: Toys, *, stacked: bool = True, **options: object) -> Spied:
    app = make_client_app(toys)
    inner: Grid = (
        StackedGrid(app, toys.names, site_of=toys) if stacked else LocalGrid(app, toys.names)
    )
    return Spied(inner, nodes(inner), **options)  # type: ignore[arg-type]


def secure(
    grid: Grid,
    names: Mapping[int, str] | None = None,
    *,
    threshold: float = 2 / 3,
    journal: Journal | None = None,
) -> SecureAggregationGrid:
    return SecureAggregationGrid(
        grid,
        names=grid.names if isinstance(grid, Spied) else names or {},
        shapes={TRAIN: SHAPES, STATISTICS: shapes("statistics", WIDTH, 3)},
        threshold=threshold,
        journal=journal,
    )


def play(
    grid: Grid,
    names: Mapping[int, str],
    *,
    plan: PrivacyPlan | None = None,
    strategy: str = "fedavg",
    task: TrainTask | None = None,
    rounds: int = 3,
    seed: int | None = 1,
) -> Outcome:
    made = make_strategy(strategy)
    return run(
        grid,
        made,
        sites=names,
        start=State(0, dict(HEAD)),
        config=task_config(task or TrainTask(rounds=3, steps=2, lr=0.5), plan, seed=seed),
        settings=Settings(rounds=getattr(made, "rounds", rounds)),
    )


def difference(a: Arrays, b: Arrays) -> float:
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


CASES = {
    "weighted": ("fedavg", None),
    "private": ("fedavg", toy_plan()),
    "optimiser": ("fedadam", None),
    "statistics": ("fed3r", None),
    "noised statistics": ("fed3r", toy_plan(1, mechanism="statistics")),
}


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "local"])
@pytest.mark.parametrize("case", CASES)
def test_a_strategy_that_sums_gets_the_same_head(case: str, stacked: bool) -> None:
    """Without a plan the weights of the sites are hidden as well, and the mean is weighted."""
    strategy, plan = CASES[case]
    plain, hidden = spied(Toys(), stacked=stacked), spied(Toys(), stacked=stacked)
    expected = play(plain, plain.names, plan=plan, strategy=strategy)
    got = play(secure(hidden), hidden.names, plan=plan, strategy=strategy)
    assert difference(expected.head, got.head) < 1e-6
    assert float(np.abs(got.head["weight"]).max()) > 0.01
    for a, b in zip(expected.history, got.history, strict=True):
        assert (a.cohort, a.failures, a.releases) == (b.cohort, b.failures, b.releases)


def test_the_server_is_shown_no_update() -> None:
    """Every vector looks random, and that of the same site on the same data another each time."""
    grids = [spied(Toys()) for _ in range(2)]
    for grid in grids:
        play(secure(grid), grid.names, rounds=1)
    for grid in grids:
        arrays = [
            (m.metadata.message_type, name, array)
            for m in grid.answered
            if m.has_content()
            for record in records(m.content, ArrayRecord)
            for name, array in record.items()
        ]
        assert {(kind, name, array.dtype) for kind, name, array in arrays} == {
            (TRAIN, MASKED, "uint64")
        }
    first, again = (
        {
            g.names[m.metadata.src_node_id]: unpack(
                records(m.content, ArrayRecord)[0], dtypes=("uint64",)
            )[MASKED]
            for m in g.answered
            if m.metadata.message_type == TRAIN
        }
        for g in grids
    )
    for name in NAMES:
        assert not (first[name] == again[name]).any()
    words = np.concatenate(list(first.values()))
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(bits.mean() - 0.5) < 0.05


@BY_STAGE
def test_sites_lost_at_any_stage_cost_their_own_update_only(stage: str) -> None:
    """After its vector has arrived a site may go: its update is in the sum all the same."""
    gone = ("site-b", "site-e")
    lossy = spied(Toys(), stage=stage, who=gone)
    got = play(secure(lossy), lossy.names, rounds=1)
    counted = stage in (CONFIRM, REVEAL)
    plain = spied(Toys(), stage=TRAIN, who=() if counted else gone)
    expected = play(plain, plain.names, rounds=1)
    assert difference(expected.head, got.head) < 1e-6
    lost = {} if counted else dict.fromkeys(gone, "reply.missing")
    assert dict(got.history[0].failures) == lost


@BY_STAGE
def test_below_the_threshold_a_round_ends_with_nothing_revealed(stage: str) -> None:
    lossy = spied(Toys(), stage=stage, who=NAMES[:3])
    with pytest.raises(TransportError, match=r"3 sites are left and 4 are needed") as error:
        play(secure(lossy), lossy.names, rounds=1)
    assert error.value.code == "secagg.threshold"
    assert error.value.next_step
    revealed = [m for m in lossy.sent if m.metadata.message_type == REVEAL]
    assert bool(revealed) == (stage == REVEAL)


def test_a_failing_site_is_named_by_its_own_code() -> None:
    grid = spied(Toys(faults={"site-c": "unreadable", "site-f": "broken"}))
    got = play(secure(grid), grid.names, rounds=2)
    assert dict(got.history[0].failures) == {"site-c": "data.unreadable", "site-f": "site.failed"}


def other_arrays(**arrays: np.ndarray) -> Callable[[Message], Message]:
    def change(reply: Message) -> Message:
        reply.content["arrays"] = pack(arrays)
        return reply

    return change


def other_body(body: bytes) -> Callable[[Message], Message]:
    def change(reply: Message) -> Message:
        return with_content(reply, stage_content(body))

    return change


LENGTH = sum(v.size for v in HEAD.values()) + 1
LIES: dict[str, tuple[str, Callable[[Message], Message | None], str]] = {
    "a short vector": (TRAIN, other_arrays(masked=np.zeros(3, np.uint64)), "secagg.length"),
    "floats": (TRAIN, other_arrays(masked=np.zeros(LENGTH)), "message.invalid"),
    "a matrix": (TRAIN, other_arrays(masked=np.zeros((2, 3), np.uint64)), "message.invalid"),
    "two vectors": (
        TRAIN,
        other_arrays(masked=np.zeros(LENGTH, np.uint64), more=np.zeros(2, np.uint64)),
        "message.invalid",
    ),
    "no JSON": (KEYS, other_body(b"\xff"), "secagg.malformed"),
    "other fields": (SHARES, other_body(b"{}"), "secagg.malformed"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_sends_nonsense_is_left_out_and_named(lie: str) -> None:
    stage, change, code = LIES[lie]
    grid = spied(Toys(), stage=stage, who=("site-d",), change=change)
    got = play(secure(grid), grid.names, rounds=1)
    assert dict(got.history[0].failures) == {"site-d": code}
    plain = spied(Toys(), stage=TRAIN, who=("site-d",))
    assert difference(play(plain, plain.names, rounds=1).head, got.head) < 1e-6


@pytest.mark.parametrize("stage", [CONFIRM, REVEAL])
def test_nonsense_after_the_vectors_changes_nothing(stage: str) -> None:
    grid = spied(Toys(), stage=stage, who=("site-d",), change=other_body(b"{}"))
    got = play(secure(grid), grid.names, rounds=1)
    plain = spied(Toys())
    assert difference(play(plain, plain.names, rounds=1).head, got.head) < 1e-6


def test_other_messages_pass_through() -> None:
    grid = secure(spied(Toys()))
    content = {"arrays": pack(HEAD)}
    to = list(grid.get_node_ids())
    replies = list(grid.send_and_receive([Message(RecordDict(content), n, EVALUATE) for n in to]))  # type: ignore[arg-type]
    assert all(r.has_content() for r in replies)
    with pytest.raises(TransportError, match="cannot be pushed") as error:
        grid.push_messages([Message(RecordDict(content), to[0], TRAIN)])  # type: ignore[arg-type]
    assert error.value.code == "secagg.push"


def test_a_sum_over_one_site_is_refused() -> None:
    grid = spied(Toys(names=NAMES[:1]))
    with pytest.raises(TransportError, match="a sum hides nothing below 2 sites"):
        play(secure(grid), grid.names, rounds=1)


# ------------------------------------------------------------------- what a site insists on
def test_a_site_whose_policy_wants_sums_answers_nothing_else() -> None:
    toys = Toys()
    for name in NAMES:
        toys.site(name).policy = SitePolicy(only_sealed=True, clear_metrics=True)
    plain = spied(toys)
    with pytest.raises(TransportError, match=r"site-a: secagg\.required"):
        play(plain, plain.names, rounds=1)
    hidden = spied(toys)
    assert not play(secure(hidden), hidden.names, rounds=1).history[0].failures


def test_a_site_that_wants_more_sites_in_a_sum_stays_out_of_it() -> None:
    toys = Toys()
    least = least_sites(2 / 3, len(NAMES))
    for more, failures in ((0, {}), (1, {"site-a": "policy.sites"})):
        toys.site("site-a").policy = SitePolicy(clear_metrics=True, least_sites=least + more)
        hidden = spied(toys)
        played = play(secure(hidden), hidden.names, rounds=1)
        assert played.history[0].failures == failures


def shared_out(honest: int, count: int = 10) -> PrivacyPlan:
    return PrivacyPlan(1e4, 1e-5, (toy_release(count, honest_sites=honest),))


ONE = TrainTask(rounds=3, lr=0.5)


def test_an_update_without_its_noise_leaves_a_site_in_a_sum_only(tmp_path: Path) -> None:
    """Nothing is paid for it either."""
    toys = Toys(names=NAMES[:3])
    site = toys.site("site-a")
    with Ledger.open(tmp_path / "ledger", durable=False) as site.ledger:
        site.dataset = DataSet.of(np.arange(96, dtype=np.uint8).reshape(3, 32))
        plain = spied(toys)
        with pytest.raises(TransportError, match=r"site-a: secagg\.required"):
            play(plain, plain.names, plan=shared_out(2), task=ONE, rounds=1)
        assert not site.ledger.entries()
        hidden = spied(toys)
        play(secure(hidden), hidden.names, plan=shared_out(2), task=ONE, rounds=1)
        assert [e.kind for e in site.ledger.entries()] == ["charge"]


@pytest.mark.parametrize(
    ("honest", "task", "code"),
    [
        (5, ONE, "secagg.honest"),
        (3, TrainTask(rounds=3, steps=2, lr=0.5), "plan.mismatch"),
        (3, TrainTask(rounds=3, lr=0.5, optimizer="adam"), "plan.mismatch"),
    ],
)
def test_noise_that_would_not_be_enough_is_refused(honest: int, task: TrainTask, code: str) -> None:
    grid = spied(Toys())  # six sites, of which four must stay
    with pytest.raises(TransportError, match=r"0 sites are left") as error:
        play(secure(grid), grid.names, plan=shared_out(honest), task=task, rounds=1)
    assert error.value.code == "secagg.threshold"
    told = {m.error.reason for m in grid.answered if m.has_error()}
    assert told == {code}


def test_a_message_delivered_twice_is_answered_from_the_store(tmp_path: Path) -> None:
    """A real site is charged once, and its vector is masked once."""
    toys = Toys(names=NAMES[:3], simulated=False)
    site = toys.site("site-b")
    with Ledger.open(tmp_path / "ledger", durable=False) as site.ledger:
        site.dataset = DataSet.of(np.arange(96, dtype=np.uint8).reshape(3, 32))

        @dataclass
        class Twice(WrappedGrid):
            inner: Grid

            def send_and_receive(
                self, messages: Iterable[Message], *, timeout: float | None = None
            ) -> Iterable[Message]:
                sent = list(messages)
                replies = list(self.inner.send_and_receive(sent, timeout=timeout))
                if sent[0].metadata.message_type == TRAIN:
                    again = list(self.inner.send_and_receive(sent, timeout=timeout))
                    same = [
                        records(r.content, ArrayRecord)[0][MASKED].numpy()
                        for part in (replies, again)
                        for r in part
                        if r.has_content() and r.metadata.src_node_id == 1001
                    ]
                    np.testing.assert_array_equal(*same)
                return replies

        grid = spied(toys)
        grid.inner = Twice(grid.inner)
        play(secure(grid), grid.names, plan=toy_plan(), rounds=1, seed=None)
        assert [e.kind for e in site.ledger.entries()] == ["charge", "reply"]


def test_another_session_is_another_release_at_a_real_site(tmp_path: Path) -> None:
    """Two sums over different survivors would show the difference between them."""
    toys = Toys(names=NAMES[:3], simulated=False)
    site = toys.site("site-b")
    with Ledger.open(tmp_path / "ledger", durable=False) as site.ledger:
        site.dataset = DataSet.of(np.arange(96, dtype=np.uint8).reshape(3, 32))
        grid = spied(toys)
        for _ in range(2):
            play(secure(grid), grid.names, plan=shared_out(2), task=ONE, rounds=1, seed=None)
        assert [e.kind for e in site.ledger.entries()] == ["charge", "reply"] * 2


def test_the_same_question_gets_the_same_answer_and_an_older_session_none() -> None:
    """A server that was restarted asks again; whoever replays an older session learns nothing."""
    toys = Toys(names=NAMES[:2])
    grid = spied(toys, stacked=False)
    play(secure(grid), grid.names, rounds=1)
    for stage in (KEYS, SHARES, CONFIRM, REVEAL):
        at, old = next(
            (at, m) for at, m in enumerate(grid.sent) if m.metadata.message_type == stage
        )
        (reply,) = grid.inner.send_and_receive(
            [Message(old.content, old.metadata.dst_node_id, stage)]
        )
        assert dict(reply.content) == dict(grid.answered[at].content)
    (session,) = records(grid.sent[0].content, ConfigRecord)
    first = Session.from_bytes(session["body"])  # type: ignore[arg-type]
    play(secure(grid), grid.names, rounds=1)
    for number in (first.number, first.number + 1):
        body = stage_content(replace(first, number=number).to_bytes())
        (reply,) = grid.inner.send_and_receive(
            [Message(body, grid.sent[0].metadata.dst_node_id, KEYS)]
        )
        assert reply.error.reason == "secagg.replayed"


def test_identities_can_be_listed() -> None:
    """A site that lists the others' keys does not believe a server that brings its own."""
    toys = Toys(names=NAMES[:3])
    toys.site("site-a").trusted = {name: bytes(32) for name in NAMES[:3]}
    grid = spied(toys)
    got = play(secure(grid), grid.names, rounds=1)
    assert dict(got.history[0].failures) == {"site-a": "secagg.identity"}


# ------------------------------------------------------------------ a session that is cut
class Died(Exception):
    """The server's process is gone."""


@dataclass
class Dying(WrappedGrid):
    """Dies in a stage, before its messages are sent or when the answers are there."""

    inner: Grid
    stage: str
    answered: bool

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        dies = sent[0].metadata.message_type == self.stage
        if dies and not self.answered:
            raise Died
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        if dies:
            raise Died
        return replies


def with_ledgers(folder: Path, toys: Toys) -> list[Ledger]:
    ledgers = []
    for at, name in enumerate(toys.names):
        site = toys.site(name)
        site.ledger = Ledger.open(folder / name, durable=False)
        site.dataset = DataSet.of(np.arange(96, dtype=np.uint8).reshape(3, 32) + np.uint8(at))
        ledgers.append(site.ledger)
    return ledgers


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@BY_STAGE
def test_a_server_that_dies_takes_the_session_up_and_nobody_pays_twice(
    stage: str, answered: bool, tmp_path: Path
) -> None:
    toys = Toys(names=NAMES[:3], simulated=False)
    ledgers = with_ledgers(tmp_path, toys)
    grid, journal = spied(toys), Journal(tmp_path / "journal")

    def played(inner: Grid) -> Outcome:
        hidden = secure(inner, grid.names, journal=journal)
        return play(hidden, grid.names, plan=shared_out(2), task=ONE, rounds=1, seed=None)

    with pytest.raises(Died):
        played(Dying(grid, stage, answered))
    first = played(grid)
    assert not first.history[0].failures
    for ledger in ledgers:
        assert [e.kind for e in ledger.entries()] == ["charge", "reply"]
    assert difference(played(Dying(grid, KEYS, answered=False)).head, first.head) == 0
    assert [len(ledger.entries()) for ledger in ledgers] == [2, 2, 2]


@pytest.mark.parametrize("stage", [TRAIN, CONFIRM, REVEAL])
def test_a_round_that_lost_too_many_goes_on_when_they_are_back(stage: str, tmp_path: Path) -> None:
    toys = Toys(names=NAMES[:3], simulated=False)
    ledgers = with_ledgers(tmp_path, toys)
    grid, journal = spied(toys, stage=stage, who=NAMES[1:3]), Journal(tmp_path / "journal")

    def played() -> Outcome:
        hidden = secure(grid, journal=journal)
        return play(hidden, grid.names, plan=shared_out(2), task=ONE, rounds=1, seed=None)

    with pytest.raises(TransportError) as error:
        played()
    assert error.value.code == "secagg.threshold"
    grid.who = ()
    assert not played().history[0].failures
    assert [len(ledger.entries()) for ledger in ledgers] == [2, 2, 2]


def test_who_never_comes_back_costs_the_others_another_release(tmp_path: Path) -> None:
    """Else one site could hold up a run for ever."""
    toys = Toys(names=NAMES[:3], simulated=False)
    ledgers = with_ledgers(tmp_path, toys)
    grid, journal = spied(toys, stage=TRAIN, who=NAMES[1:3]), Journal(tmp_path / "journal")
    for _ in range(MOST_TRIES + 1):
        with pytest.raises(TransportError):
            play(
                secure(grid, journal=journal),
                grid.names,
                plan=shared_out(2),
                task=ONE,
                rounds=1,
                seed=None,
            )
    assert [len(ledger.entries()) for ledger in ledgers] == [4, 4, 4]


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.session("a", lambda: b"one") == b"one"
    journal.keep(KEYS, {"site-a": "secagg.stage", "site-b": stage_content(b"x")})
    kept = journal.answers(KEYS)
    assert kept is not None
    assert kept["site-a"] == "secagg.stage"
    assert Journal(tmp_path).session("a", lambda: b"two") == b"one"
    (tmp_path / KEYS).write_bytes(b"nonsense")
    with pytest.raises(CacheError, match="damaged"):
        journal.answers(KEYS)
    assert journal.session("b", lambda: b"two") == b"two"
    assert journal.answers(KEYS) is None


# ------------------------------------------------------------------------------ shared noise
def released(honest: int, n: int, seed: int) -> np.ndarray:
    toys = Toys(names=NAMES[:n])
    grid = spied(toys)
    task = TrainTask(rounds=1, lr=2.0)
    out = play(
        secure(grid, threshold=1.0),
        grid.names,
        plan=shared_out(honest),
        task=task,
        rounds=1,
        seed=seed,
    )
    return out.head["weight"].ravel()


@pytest.mark.parametrize(("honest", "n"), [(6, 6), (3, 6)])
def test_the_sum_carries_the_promised_noise(honest: int, n: int) -> None:
    """All of it if the honest sites alone are there, more if there are more."""
    drawn = np.array([released(honest, n, seed) for seed in range(40)])
    plan = shared_out(honest).releases[0]
    whole = 2.0 * plan.noise_multiplier * plan.clip_norm / plan.public_size
    expected = whole * (n / honest) ** 0.5 / n
    measured = (drawn - drawn.mean(axis=0)).std() * (40 / 39) ** 0.5
    assert measured == pytest.approx(expected, rel=0.06)
    correlation = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert np.abs(correlation).max() < 0.7


def test_sites_that_share_noise_need_a_fraction_of_that_of_private_sites() -> None:
    """Six sites: 1 / sqrt(6); ten would need a third."""
    shared = np.array([released(6, 6, seed) for seed in range(40)])
    alone = []
    for seed in range(40):
        grid = spied(Toys())
        out = play(
            grid, grid.names, plan=toy_plan(), task=TrainTask(1, lr=2.0), rounds=1, seed=seed
        )
        alone.append(out.head["weight"].ravel())
    ratio = np.array(alone).std(axis=0).mean() / shared.std(axis=0).mean()
    assert ratio == pytest.approx(6**0.5, rel=0.1)


def test_bytes_are_at_most_three_times_the_plain_update() -> None:
    names = tuple(f"s{at}" for at in range(10))
    toys = Toys(names=names)
    sizes = []
    for hidden in (False, True):
        grid = spied(toys)
        metered = MeteredGrid(grid.inner)
        grid.inner = metered
        play(secure(grid) if hidden else grid, grid.names, rounds=1)
        sizes.append(metered.traffic.up[1000])
    overhead = sizes[1] - 2 * (sizes[0] - 128)
    assert overhead < 2_700  # beside the 51,240 bytes of a head of 12,810 values


def test_a_context_remembers_no_secrets_after_the_session() -> None:
    toys = Toys(names=NAMES[:2])
    grid = spied(toys, stacked=False)
    play(secure(grid), grid.names, rounds=1)
    inner = grid.inner
    assert isinstance(inner, LocalGrid)
    for node in grid.names:
        context: Context = inner.context(node)
        assert context.state["secagg"]["secrets"] == b""


def test_refusals_have_codes_and_next_steps() -> None:
    with pytest.raises(PrivacyError, match=r"threshold = 0\.5") as error:
        Session("1", 1, 1, 4, 0.5, 1.0)
    assert error.value.code == "secagg.threshold"
    assert error.value.next_step
