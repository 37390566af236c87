"""What an agent serves: a site that may not be ready yet, and may be given another backbone."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fedtl.errors import BackboneError
from fedtl.site.site import Site
from fedtl.types import READY, Description
from fedtl.wire.backbone import Offer, Piece
from fedtl.wire.charter import Charter


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a site is; nothing that depends on an example but its number.

    Attributes
    ----------
    state : str
        ``ready``, ``preparing``, ``no backbone``, or the code of what keeps it from being ready.
    phase : str
        What is being prepared.
    done, total : int
        How far that is; ``total`` 0 where it is unknown.
    backbone, architecture : str
        Digest and name of the active backbone; empty before one is there.
    """

    state: str
    phase: str = ""
    done: int = 0
    total: int = 0
    backbone: str = ""
    architecture: str = ""


class Served(Protocol):
    """A site as its agent sees it."""

    @property
    def name(self) -> str:
        """Public name."""

    @property
    def turn(self) -> AbstractContextManager[object]:
        """Held while a message is answered: the site does not change in the middle of one."""

    def site(self) -> Site:
        """Return the site that answers.

        Raises
        ------
        FedtlError
            There is none yet, with code ``site.preparing`` or that of what went wrong.
        """

    def describe(self) -> Description:
        """Return the public description, at any time."""

    def stage(self) -> Stage:
        """Return how far the site is; never waits."""

    def receive(self, asked: Offer | Piece, charter: Charter | None = None) -> int:
        """Take an offer or a piece of a backbone; return how many of its bytes the site has.

        Parameters
        ----------
        charter : Charter, optional
            Says who sends it.

        Raises
        ------
        FedtlError
            With a code ``policy.*`` or ``backbone.*``.
        """


class Unchanging:
    """A site that is ready and keeps its backbone."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.name = site.name
        self.turn = threading.Lock()

    def site(self) -> Site:
        """Return the site."""
        return self._site

    def describe(self) -> Description:
        """Return the public description."""
        return self._site.describe()

    def stage(self) -> Stage:
        """Return that it is ready."""
        return Stage(READY, backbone=self._site.backbone)

    def receive(self, asked: Offer | Piece, charter: Charter | None = None) -> int:
        """Refuse every backbone."""
        raise BackboneError(
            f"{self.name} keeps the backbone it has.",
            next_step="Use that one in the recipe.",
            code="policy.backbone",
        )
