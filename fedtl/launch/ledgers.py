"""Where ledgers lie: one per site, in the run folder of a simulation or in a site's own folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

from fedtl.errors import CacheError

LEDGER, SITES = "ledger.sqlite", "sites"
_LONGEST = 120


def ledger_file(run: Path, site: str) -> Path:
    """Return the ledger of a simulated site; its name may hold anything.

    Examples
    --------
    >>> ledger_file(Path("run"), "north/../x").as_posix()
    'run/sites/north%2F..%2Fx/ledger.sqlite'
    """
    name = quote(site, safe=" ()")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 17] + "~" + hashlib.sha256(site.encode()).hexdigest()[:16]
    return run / SITES / name / LEDGER


def check_ledgers(run: Path, sites: Iterable[str]) -> None:
    """Refuse to go on where a site that has spent privacy has lost its ledger, or a bad one.

    Raises
    ------
    CacheError, PrivacyError
        With a code such as ``ledger.missing``, ``ledger.damaged`` or ``ledger.broken``.
    """
    from fedtl.privacy.ledger import Ledger

    for site in sites:
        if not (file := ledger_file(run, site)).is_file():
            raise CacheError(
                f"The ledger '{file}' is missing, but {site} has spent privacy in this run.",
                next_step="Put it back, or start the run in a new folder.",
                code="ledger.missing",
            )
        with Ledger.open(file, read_only=True) as ledger:
            ledger.verify()


def ledgers_in(path: Path) -> dict[str, Path]:
    """Return the ledgers that a path stands for, by site: a file, a site's folder or a run folder.

    Raises
    ------
    CacheError
        There is none.
    """
    if path.is_file():
        return {unquote(path.parent.name) or path.stem: path}
    if (path / LEDGER).is_file():
        return {unquote(path.resolve().name): path / LEDGER}
    found = sorted((path / SITES).glob(f"*/{LEDGER}"))
    if not found:
        raise CacheError(
            f"There is no ledger in '{path}'.",
            next_step="Name a ledger file, the folder of a site, or the folder of a private run.",
            code="ledger.missing",
        )
    return {unquote(file.parent.name): file for file in found}
