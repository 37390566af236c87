"""From a site's state folder to the site that its agent serves, prepared in the background.

The agent answers from its first moment; data and features are read and made meanwhile, in one
thread. What went wrong is tried again after somebody asked how the site is, but not at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fedtl import __version__
from fedtl.agent.served import Stage
from fedtl.backbone import BackboneCard
from fedtl.data import Manifest
from fedtl.errors import BackboneError, ConfigError, FedtlError
from fedtl.home import write_atomic
from fedtl.launch.ledgers import LEDGER
from fedtl.launch.preparing import first_card, open_data, usable, with_features
from fedtl.launch.progress import Progress, silent
from fedtl.privacy.ledger import Ledger
from fedtl.privacy.secagg import Identity
from fedtl.site.backbone import read_card, take_offer, take_piece
from fedtl.site.config import IDENTITY, SiteFolder
from fedtl.site.folder import PRIVATE_FILE
from fedtl.site.origin import check_asker
from fedtl.site.site import Site
from fedtl.types import NO_BACKBONE, PREPARING, READY, Description
from fedtl.wire.backbone import Offer, Piece
from fedtl.wire.charter import Charter

SOCKET = "agent.sock"
"""Where in a state folder the agent listens."""
RETRY_SECONDS = 10.0
"""Least time after a failure before it is tried again."""
_PATIENCE = 8.0
"""Seconds that stopping waits for the work to notice; supervisors kill after ten."""
_HOPELESS = ("backbone.invalid", "backbone.unknown")
"""Of a backbone that was sent: trying again would end the same way."""
_log = logging.getLogger("fedtl.agent")


class _Superseded(Exception):
    """The work that was going on is no longer wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Make the site ready with a backbone; None is the one of the state folder."""

    sent: BackboneCard | None = None


class OwnSite:
    """The site of a state folder, as its agent serves it.

    Parameters
    ----------
    read : SiteFolder
        The state folder.
    ledger : Ledger
        The site's, open.
    identity : Identity
        The site's lasting key.
    progress : Progress
        Called with phase, done and total, from the thread that prepares.
    """

    def __init__(
        self, read: SiteFolder, ledger: Ledger, identity: Identity, progress: Progress = silent
    ) -> None:
        self.name = read.config.name
        self.turn = threading.Lock()
        self._read, self._ledger, self._identity, self._show = read, ledger, identity, progress
        self._changed = threading.Condition()
        self._job: _Job | None = _Job()
        self._stopping = False
        self._failure, self._failed, self._failed_at = "", _Job(), 0.0
        self._next: BackboneCard | None = None
        self._reached = ("", 0, 0)
        self._manifest: Manifest | None = None
        self._card: BackboneCard | None = None
        self._site: Site | None = None
        # a thread that waits for a disk must not keep the process alive
        self._thread = threading.Thread(target=self._work, name="fedtl-prepare", daemon=True)
        self._thread.start()

    def site(self) -> Site:
        """Return the site that answers; see :class:`fedtl.agent.served.Served`."""
        if self._site is not None:
            return self._site
        state = self._stage().state
        code = {PREPARING: "site.preparing", NO_BACKBONE: "site.no-backbone"}.get(state, state)
        raise FedtlError(
            f"{self.name} is not ready: {state}.",
            next_step="`fedtl site status` says how far it is.",
            code=code,
        )

    def describe(self) -> Description:
        """Return the public description, with how far the site is."""
        state = self.stage().state
        if self._site is not None:
            return replace(self._site.describe(), state=state)
        classes = () if self._manifest is None else self._manifest.classes
        return Description(self.name, classes, "", 0, __version__, state)

    def stage(self) -> Stage:
        """Return how far the site is; what went wrong some time ago is then tried again."""
        stage = self._stage()
        self._try_again()
        return stage

    def _stage(self) -> Stage:
        with self._changed:
            card = self._card
            names = ("", "") if card is None else (card.digest(), card.architecture)
            if self._job is not None:
                return Stage(PREPARING, *self._reached, *names)
            return Stage(self._failure or (READY if card else NO_BACKBONE), "", 0, 0, *names)

    def receive(self, asked: Offer | Piece, charter: Charter | None = None) -> int:
        """Take an offer or a piece of a backbone; see :class:`fedtl.agent.served.Served`."""
        check_asker(self.name, self._read.policy, charter)
        card: BackboneCard | None
        if isinstance(asked, Piece):
            self._check_accepts()
            have, card = take_piece(asked)
        else:
            if self._is_wanted(read_card(asked.card)):
                return asked.n_bytes
            self._check_accepts()
            have, card = take_offer(asked)
        if card is not None:
            self._start(_Job(card))
        return have

    def settle(self, timeout: float = 120.0) -> Stage:
        """Wait until nothing is being prepared, and return how far the site is."""
        with self._changed:
            self._changed.wait_for(lambda: self._job is None, timeout)
        return self._stage()

    def stop(self) -> bool:
        """Stop preparing, keeping the features made so far; False if the work does not notice."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE)
        return not self._thread.is_alive()

    def _check_accepts(self) -> None:
        if self._read.policy.accept_backbones:
            return
        undecided = self._job is not None and self._next is None
        raise BackboneError(
            f"{self.name} was offered a backbone, and its policy does not accept any.",
            next_step="Name the same backbone in site.toml as the recipe does, or set "
            "accept_backbones = true in policy.toml.",
            code="site.preparing" if undecided else "policy.backbone",
        )

    def _is_wanted(self, card: BackboneCard) -> bool:
        """Say whether a backbone is the active one, or the one that is being prepared."""
        with self._changed:
            wanted = self._card if self._job is None else self._next
            if wanted is None or wanted.digest() != card.digest():
                return False
            self._failure = ""  # of another one, which nobody wants any more
            return True

    def _start(self, job: _Job) -> None:
        with self._changed:
            self._job, self._next, self._failure = job, job.sent, ""
            self._reached = ("", 0, 0)
            self._changed.notify_all()

    def _try_again(self) -> None:
        with self._changed:
            failed = self._failure and self._job is None and self._failure not in _HOPELESS
            if failed and time.monotonic() - self._failed_at >= RETRY_SECONDS:
                self._start(self._failed)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._job is not None)
                job = self._job
            if self._stopping or job is None:
                return
            failure = self._tried(job)
            with self._changed:
                if self._job is job:
                    self._job, self._failure = None, failure
                    self._failed, self._failed_at = job, time.monotonic()
                    self._changed.notify_all()

    def _tried(self, job: _Job) -> str:
        """Do a job; return the code of what went wrong, whose text stays in the site's log."""
        try:
            self._prepare(job)
        except _Superseded:
            return ""
        except FedtlError as error:
            _log.warning("%s: %s", self.name, error)
            return error.code
        except Exception:
            _log.exception("%s: unexpected failure", self.name)
            return "site.failed"
        return ""

    def _prepare(self, job: _Job) -> None:
        def progress(phase: str, done: int, total: int) -> None:
            if self._stopping or self._job is not job:
                raise _Superseded
            self._reached = (phase, done, total)
            self._show(phase, done, total)

        self._manifest = self._manifest or open_data(self._read, progress)
        progress("backbone", 0, 0)
        sent = job.sent
        card = first_card(self._read) if sent is None else usable(self._read.folder, sent)
        if card is None:
            return
        self._next = card
        site = with_features(
            self._read, self._manifest, card, ledger=self._ledger, progress=progress
        )
        site.identity = self._identity
        n = len(site.examples[0])
        with self.turn, self._changed:
            progress("ready", n, n)
            self._site, self._card = site, card


@contextmanager
def own_site(
    read: SiteFolder, progress: Progress = silent, *, stuck: Callable[[], None] = lambda: None
) -> Iterator[OwnSite]:
    """Hold a site's ledger and key, and prepare its data until the block is left.

    Where the data name groups such as patients, groups are what its records are: plans have to
    protect them.

    Parameters
    ----------
    stuck : callable
        Called at the very end if the work does not stop, as when a disk does not answer.

    Raises
    ------
    FedtlError
        The key or the ledger cannot be used.
    """
    identity = _identity(read.folder / IDENTITY)
    with Ledger.open(read.folder / LEDGER) as ledger:
        site = OwnSite(read, ledger, identity, progress)
        try:
            yield site
        finally:
            stopped = site.stop()
    if not stopped:
        stuck()


def _identity(path: Path) -> Identity:
    """Return the site's lasting key; the first time it is made, for its owner's eyes only."""
    if not path.exists():
        new = Identity.new()
        write_atomic(path, lambda file: file.write(new.private), mode=PRIVATE_FILE)
        return new
    private = path.read_bytes()
    if len(private) != len(Identity.new().private):
        raise ConfigError(
            f"The key '{path}' is damaged.",
            next_step="Put it back from a copy. A new key is another site to the others: delete "
            "the file to have one made, and tell them.",
        )
    return Identity(private)
