"""What ``fedtl doctor`` looks at on either side of a federation, over the network too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedtl.launch.coordinator.config import SERVER_FILE
from fedtl.site.config import SITE_FILE

_SITES, _SERVERS = (".", "site"), (".", "coordinator")
"""Where a folder is looked for that nobody named: here, and under the commands' own defaults."""


def found_site() -> Path | None:
    """Return a site's state folder that lies here."""
    return _found(_SITES, SITE_FILE)


def found_server() -> Path | None:
    """Return a coordinator's folder that lies here."""
    return _found(_SERVERS, SERVER_FILE)


def _found(places: Sequence[str], file: str) -> Path | None:
    return next((Path(place) for place in places if (Path(place) / file).is_file()), None)
