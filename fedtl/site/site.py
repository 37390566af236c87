"""The site's story: what happens to a task where the data is.

A site owns its examples and answers five questions: describe, train (:mod:`fedtl.site.cohort`),
statistics, evaluate and labels (:mod:`fedtl.site.metrics`). It never hands out an example, and an
exception leaves it as a code only. What is private is paid for in the site's ledger before it is
computed (:mod:`fedtl.site.account`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fedtl import __version__
from fedtl.errors import FedtlError, PrivacyError
from fedtl.privacy.ledger import DataSet, Ledger, RequestKey
from fedtl.privacy.plan import Release
from fedtl.privacy.release import ABOUT_HELD_OUT
from fedtl.privacy.secagg import Identity
from fedtl.site.account import Account, content_of
from fedtl.site.examples import check_examples, seen
from fedtl.site.memory import Memory
from fedtl.site.origin import check_origin
from fedtl.site.policy import SIMULATED, STRICT, SitePolicy
from fedtl.site.seal import Seal
from fedtl.site.standing import told_left
from fedtl.train.additive import deviations, released
from fedtl.train.fit import Examples
from fedtl.train.heads import check_head, map_key, mapped
from fedtl.train.objectives import LocalStatistic, check_beside, make_statistic
from fedtl.train.streams import SeededStreams, Streams, SystemStreams
from fedtl.types import Arrays, Description, Personal, Update
from fedtl.wire.messages import ADDITIVE, MECHANISMS, SUMS, Request, release_of

KeepPersonal = Callable[[str, int, Arrays, Personal], None]


@dataclass
class Site:
    """One institution's data, ready for training.

    Attributes
    ----------
    name : str
        Public name.
    classes : tuple of str
        The federation's class list, in order.
    width : int
        Features per example, bias feature included.
    backbone : str
        Digest of backbone, taps and transform that made the features.
    load : callable
        Returns training and held-out examples; called once, when first needed.
    spent_before : mapping of str to int
        Releases of this run by mechanism that were made before this process started (a resumed
        run).
    simulated : bool
        Whether noise may be seeded by the run. A real site never allows it.
    ledger, dataset : Ledger and DataSet, or None
        Where releases are paid for, and the records they are about (the training examples).
        Without a ledger, the releases of a run are counted by ``spent_before`` and by Flower.
    policy : SitePolicy or None
        What the site allows. Without one it allows little, in a simulation everything.
    run : str
        Identity of the run in the ledger; empty: Flower's run id.
    identity : Identity or None
        The key by which other sites know this one under secure aggregation; None: one for the run.
    trusted : mapping of str to bytes, or None
        Public identities of the other sites; None believes a name when it is first met in a run.
    held_out_dataset : DataSet or None
        The held-out records, which pay for noised metrics; they have the whole budget as well.
    memory : Memory
        What the site remembers for client-side steps; by default for as long as it lives.
    keep_personal : callable or None
        Called with a run, a round, the head that the site uses from now on, and how it compares,
        where a strategy asks for personal heads.
    """

    name: str
    classes: tuple[str, ...]
    width: int
    backbone: str
    load: Callable[[], tuple[Examples, Examples]] = field(repr=False)
    spent_before: Mapping[str, int] = field(default_factory=dict)
    simulated: bool = False
    ledger: Ledger | None = field(default=None, repr=False)
    dataset: DataSet | None = field(default=None, repr=False)
    policy: SitePolicy | None = None
    run: str = ""
    identity: Identity | None = field(default=None, repr=False)
    trusted: Mapping[str, bytes] | None = None
    held_out_dataset: DataSet | None = field(default=None, repr=False)
    memory: Memory = field(default_factory=Memory, repr=False)
    keep_personal: KeepPersonal | None = field(default=None, repr=False)
    _whitened: tuple[tuple[bytes, ...], tuple[Examples, Examples]] | None = field(
        default=None, repr=False, init=False
    )

    @cached_property
    def examples(self) -> tuple[Examples, Examples]:
        """Training and held-out examples, checked once.

        Raises
        ------
        DataError
            With code ``data.invalid``: features that are not finite (a NaN passes through clipping
            and shows through any noise) or do not fit the head, or labels outside the class list.
        """
        train, held_out = self.load()
        for part in (train, held_out):
            check_examples(part, self.width, len(self.classes))
        return train, held_out

    @property
    def rules(self) -> SitePolicy:
        """The site's policy, or what holds without one."""
        return self.policy or (SIMULATED if self.simulated else STRICT)

    def describe(self) -> Description:
        """Return the site's public description."""
        return Description(
            self.name,
            self.classes,
            self.backbone,
            self.width,
            __version__,
            epsilon_left=told_left(self),
        )

    def whitened(self, head: Arrays) -> tuple[Examples, Examples]:
        """Return training and held-out examples as a head looks at them, remembered for the last.

        Parameters
        ----------
        head : mapping of str to NDArray
            Checked before.
        """
        if not (key := map_key(head)):
            return self.examples
        if self._whitened is None or self._whitened[0] != key:
            train, held_out = (seen(part, mapped(head, part.x)) for part in self.examples)
            self._whitened = key, (train, held_out)
        return self._whitened[1]

    def sums(
        self, request: Request, kind: str, spent: int, run: str = "", seal: Seal | None = None
    ) -> Update:
        """Release sums over the training examples, as the request's head looks at them.

        Parameters
        ----------
        kind : str
            Type of the message, in :data:`fedtl.wire.messages.ADDITIVE`.
        spent : int
            Such releases of this run so far, of a site without a ledger.
        run : str
            Flower's run id.
        seal : Seal, optional
            Under secure aggregation: what hides the update in the sum.
        """
        release, mechanism = release_of(request, kind), ADDITIVE[kind]
        if request.arrays:
            check_head(request.arrays, width=self.width, classes=len(self.classes))
        account = self.account(request, kind, run, seal=seal)
        if account is not None and (given := account.answered()) is not None:
            return given
        train = self.whitened(request.arrays)[0]
        statistic = self._statistic(request, train.x.shape[1]) if kind == SUMS else None
        check_seal(self, request, release, seal)
        self.rules.check_size(self.name, len(train))
        releases = paid(account, release, spent, 1)
        streams = self.streams(request)
        update = Update(
            released(
                train,
                len(self.classes),
                mechanism=mechanism,
                release=release,
                streams=streams,
                statistic=statistic,
                sent=request.beside,
            ),
            1.0 if release else float(len(train)),
            releases,
        )
        if seal is not None:
            needed = deviations(release, train.x.shape[1], mechanism) if release else {}
            update = seal.close(update, release, needed, streams)
        return update if account is None else account.keep(update)

    def _statistic(self, request: Request, width: int) -> LocalStatistic:
        """Return what sums are asked for, made of the site's own code; check what was sent."""
        if request.objective is None:
            raise FedtlError("The message names no statistic.", code="message.invalid")
        allowed = None if self.simulated else self.rules.objectives
        made = make_statistic(request.objective, allowed=allowed)
        check_beside(made, made.sends(width, len(self.classes)), request.beside)
        return made

    def account(
        self,
        request: Request,
        kind: str,
        run: str,
        content: str | None = None,
        *,
        seal: Seal | None = None,
    ) -> Account | None:
        """Return what a request means to the site's ledger; None if it is not private.

        Parameters
        ----------
        run : str
            Flower's run id.
        content : str, optional
            Digest of the request, if it is known already.
        seal : Seal, optional
            The same update sealed in two sessions could be told from two sums, so in another
            session it is another release.
        """
        check_origin(self.name, self.rules, request)
        self.rules.check_release(self.name, MECHANISMS[kind])
        if self.ledger is None or request.plan is None:
            return None
        held_out = MECHANISMS[kind] in ABOUT_HELD_OUT
        dataset = self.held_out_dataset if held_out else self.dataset
        if dataset is None:
            raise PrivacyError(
                f"{self.name} has a ledger but no data set to charge.",
                next_step="Give the Site the DataSet of its "
                f"{'held-out' if held_out else 'training'} examples.",
            )
        if request.plan.unit != dataset.unit:
            raise PrivacyError(
                f"The plan protects every {request.plan.unit}, and {self.name} keeps account of "
                f"{dataset.unit}s.",
                next_step=f"Set privacy.unit = '{dataset.unit}' in the recipe.",
                code="policy.unit",
            )
        content = content_of(request) if content is None else content
        seeded = self.simulated and request.seed is not None
        if seal is not None and not seeded:
            content = hashlib.sha256(f"{content} in {seal.session}".encode()).hexdigest()
        key = RequestKey(self.run_of(request, run), request.round, kind, self.name, content)
        budget = self.rules.budget
        return Account(self.ledger, dataset, budget, key, keeps_replies=not seeded)

    def run_of(self, request: Request, run: str) -> str:
        """Return the name of a request's run; ``run`` is Flower's run id."""
        return self.run or (request.charter.run if request.charter else run)

    def streams(self, request: Request, purpose: str = "noise") -> Streams:
        """Open the random streams of a round and a purpose: seeded only in a simulation."""
        if self.simulated and request.seed is not None:
            return SeededStreams(request.seed, request.round, self.name, purpose)
        return SystemStreams()


def check_seal(site: Site, request: Request, release: Release | None, seal: Seal | None) -> None:
    """Refuse what may leave the site in a sum only, and has no seal that fits.

    Raises
    ------
    PrivacyError
        With a code ``secagg.*`` or ``policy.*``, before anything is paid.
    """
    site.rules.check_update(
        site.name,
        private=release is not None,
        shared=release is not None and release.honest_sites > 0,
        sealed=seal is not None,
    )
    if seal is not None:
        site.rules.check_sum(site.name, seal.secrets.session.least())
        seal.check(request, release)


def paid(account: Account | None, release: Release | None, spent: int, times: int) -> int:
    """Pay for some releases; return those of their kind in the run so far.

    Epsilon never restarts with a round: the plan's budget is for the whole run.

    Raises
    ------
    PrivacyError
        With code ``privacy.spent`` or ``privacy.budget``.
    """
    if release is None:
        return 0
    if account is not None:
        return account.pay(release, times)
    if spent + times > release.count:
        raise PrivacyError(
            f"{spent} of {release.count} releases are spent and {times} more are asked for.",
            next_step="Start a new run with a plan that covers more rounds.",
            code="privacy.spent",
        )
    return spent + times
