"""Errors a user can mend, and failure codes that may leave a site.

A :class:`FedtlError` names the argument, its value, where it was met and what to do next. The
command line prints it as one paragraph and exits with :attr:`FedtlError.exit_code`; nobody sees a
traceback for his own mistake. :class:`SiteFailure` is the only thing a site ever says about an
exception: a code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class FedtlError(Exception):
    """A mistake or a condition the user can mend.

    Parameters
    ----------
    problem : str
        What is wrong: argument, value and place, in one sentence.
    next_step : str
        What the user can do about it.
    code : str
        Machine-readable reason such as ``"data.empty"``; the only part that may leave a site.

    Examples
    --------
    >>> print(FedtlError("The folder 'x' is empty.", next_step="Name another folder."))
    The folder 'x' is empty. Name another folder.
    """

    exit_code = 2

    def __init__(self, problem: str, *, next_step: str = "", code: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step
        self.code = code or self.default_code

    default_code = "error"

    def __str__(self) -> str:
        return f"{self.problem} {self.next_step}".strip()


class RecipeError(FedtlError):
    """A recipe, flag or argument that cannot be carried out."""

    default_code = "recipe.invalid"


class ConfigError(FedtlError):
    """A file or folder of a site's own settings that cannot be used."""

    default_code = "config.invalid"


class DataError(FedtlError):
    """A data set that cannot be read or split as asked."""

    default_code = "data.invalid"


class BackboneError(FedtlError):
    """A backbone, weight file or engine that cannot be used."""

    default_code = "backbone.invalid"


class CacheError(FedtlError):
    """A cache or run folder that cannot be written or trusted."""

    default_code = "cache.invalid"


class PrivacyError(FedtlError):
    """A privacy plan that is unknown, contradictory or spent."""

    default_code = "privacy.refused"


class StrategyError(FedtlError):
    """A strategy that cannot be found, loaded or run."""

    default_code = "strategy.invalid"


class TransportError(FedtlError):
    """A transport that cannot start or lost its sites."""

    default_code = "transport.failed"


@dataclass(frozen=True, slots=True)
class SiteFailure:
    """What a site says when something went wrong: a code without text, paths or values."""

    code: str


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, and list the known ones.

    Examples
    --------
    >>> nearest("fedavgg", ["fedavg", "krum"])
    "Did you mean 'fedavg'? Known: fedavg, krum."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{hint}Known: {shown}."
