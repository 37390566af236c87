"""Whether this machine can do the work: device, time, disk, clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fedtl.backbone import BackboneCard
from fedtl.data import Manifest
from fedtl.features.cache import limit
from fedtl.features.estimate import seconds_needed, still_missing
from fedtl.home import home
from fedtl.launch.opening import checked_device, engine_of
from fedtl.privacy.ledger.clock import Reading, read_clock
from fedtl.report.words import count, duration, plural, size
from fedtl.site.config import SiteConfig
from fedtl.types import Finding

RELEASED = datetime(2025, 11, 1, tzinfo=UTC).timestamp()
"""A clock before this is wrong: fedtl was written later."""
_YEARS = 20 * 365.25 * 86400.0
_HOUR = 3600.0


def look_at_device(config: SiteConfig) -> Iterator[Finding]:
    """Say where the backbone runs.

    Raises
    ------
    ConfigError
        The device that is wanted is not there.
    """
    there = ", ".join(f"{kind} ({name})" for kind, name in checked_device(config).items())
    if there and config.device == "cpu":
        yield Finding("device", "ok", f"the CPU, as site.toml says, although there is {there}")
    else:
        yield Finding("device", "ok", there or "the CPU")


def look_at_features(
    manifest: Manifest, card: BackboneCard, config: SiteConfig
) -> Iterator[Finding]:
    """Measure what making the features takes, and whether the disk holds them."""
    body = config.backbone
    missing, cached = still_missing(manifest, card, precision=body.precision)
    n_bytes = 4 * len(missing) * card.width + 4 * len(manifest) * (card.width + 1)
    if missing:
        seconds = seconds_needed(
            manifest,
            card,
            missing,
            engine=engine_of(config),
            precision=body.precision,
            threads=config.threads or None,
        )
        what = f"about {duration(seconds)} for {plural(len(missing), 'image')}, measured on a few"
        yield Finding("features", "ok", f"{what}; {count(cached)} are made already")
    else:
        yield Finding("features", "ok", f"all {count(cached)} are made already")
    yield from look_at_disk(n_bytes)


def look_at_disk(n_bytes: int) -> Iterator[Finding]:
    """Compare what features need with what is free."""
    folder = home()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free, most = shutil.disk_usage(folder).free, limit()
    what = f"features need {size(n_bytes)}; {size(free)} are free in '{home()}'"
    if n_bytes > free:
        cure = "Free some space (`fedtl features prune`), or set FEDTL_HOME to a larger disk."
        yield Finding("disk", "broken", what, cure)
    elif n_bytes > most:
        what += f", but the cache may hold {size(most)} only"
        yield Finding("disk", "broken", what, "Set FEDTL_CACHE_GB to more gigabytes.")
    else:
        few = free < 2 * n_bytes + 10**9
        cure = "Free some space before long, or set FEDTL_HOME to a larger disk." if few else ""
        yield Finding("disk", "note" if few else "ok", what, cure)


def look_at_clock(folder: Path, now: Reading | None = None) -> Iterator[Finding]:
    """See whether the time can be right: a budget's period depends on it.

    Parameters
    ----------
    folder : Path
        Files that were written before now.
    now : Reading, optional
        Of the clocks; read by default.
    """
    utc = (now or read_clock()).utc
    said = f"{datetime.fromtimestamp(utc, UTC):%Y-%m-%d %H:%M} UTC"
    cure = "Set the clock, and let it be kept right by NTP."
    newest = max((path.stat().st_mtime for path in folder.iterdir() if path.is_file()), default=utc)
    if not RELEASED <= utc <= RELEASED + _YEARS:
        yield Finding("clock", "broken", f"{said} cannot be right", cure)
    elif newest > utc + _HOUR:
        late = duration(newest - utc)
        what = f"{said} is {late} before the newest file of the state folder"
        yield Finding("clock", "broken", what, cure)
    else:
        yield Finding("clock", "ok", said)
