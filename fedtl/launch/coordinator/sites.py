"""Which sites are enrolled: one small file each, in the coordinator's folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import tomli_w
from pydantic import Field, ValidationError

from fedtl.errors import ConfigError
from fedtl.home import write_atomic
from fedtl.launch.coordinator.config import PRIVATE_FILE, SITES
from fedtl.recipe.explain import TomlKind
from fedtl.recipe.tables import Table
from fedtl.site.names import NAME


class EnrolledSite(Table):
    """A site whose key SuperLink lets in.

    ``node_id`` is text, because TOML's numbers are too small for it.
    """

    name: str = Field(pattern=NAME)
    node_id: str = Field(pattern="^[0-9]{1,20}$")
    fingerprint: str
    key: str
    enrolled: datetime

    @property
    def node(self) -> int:
        """Flower's id."""
        return int(self.node_id)


_SITE = TomlKind(
    "enrolled site",
    EnrolledSite,
    absent="Enrol it with `fedtl server invite`.",
    look_up="`fedtl server invite` writes these files; put it back from a copy.",
    error=ConfigError,
)


def enrolled(folder: Path) -> list[EnrolledSite]:
    """Return the enrolled sites of a coordinator's folder, by name.

    Raises
    ------
    ConfigError
        A file among them cannot be used.
    """
    return [_read(path) for path in sorted((folder / SITES).glob("*.toml"))]


def enrolled_site(folder: Path, name: str) -> EnrolledSite:
    """Return one enrolled site.

    Raises
    ------
    ConfigError
        With code ``server.site``: no site is enrolled under this name.
    """
    sites = {site.name: site for site in enrolled(folder)}
    if name not in sites:
        known = ", ".join(sites) or "none"
        raise ConfigError(
            f"No site is enrolled as '{name}'.",
            next_step=f"Enrolled are: {known}.",
            code="server.site",
        )
    return sites[name]


def keep_site(folder: Path, *, name: str, node_id: int, fingerprint: str, key: str) -> None:
    """Write down that a site is enrolled."""
    now = datetime.now(UTC).replace(microsecond=0)
    site = EnrolledSite(
        name=name, node_id=str(node_id), fingerprint=fingerprint, key=key, enrolled=now
    )
    text = tomli_w.dumps(site.model_dump()).encode()
    path = folder / SITES / f"{name}.toml"
    write_atomic(path, lambda file: file.write(text), mode=PRIVATE_FILE)


def forget_site(folder: Path, name: str) -> None:
    """Delete what :func:`keep_site` wrote."""
    (folder / SITES / f"{name}.toml").unlink(missing_ok=True)


def _read(path: Path) -> EnrolledSite:
    try:
        return EnrolledSite.model_validate(_SITE.read(path))
    except ValidationError as error:
        raise _SITE.explain(error, str(path)) from error
