"""What ``server.toml`` may say, and the coordinator's folder as read from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from fedtl.errors import ConfigError
from fedtl.privacy.secagg import Identity
from fedtl.recipe.explain import TomlKind
from fedtl.recipe.tables import Table
from fedtl.site.names import ADDRESS, NAME

SERVER_FILE, KEY_FILE = "server.toml", "coordinator.key"
FLOWER_HOME, SITES, RUNS, TLS = "flwr", "sites", "runs", "tls"
"""Folders in the coordinator's folder."""
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
LISTEN = r"^(\[[0-9A-Fa-f:.]+\]|[^\s/:;{}]+):[0-9]{1,5}$"


class Limits(Table):
    """What the proxy takes from one network address."""

    body_megabytes: int = Field(16, ge=6, le=1024, description="largest request")
    requests_per_second: int = Field(200, ge=1, description="on average; ten times as a burst")
    connections: int = Field(200, ge=1, description="at the same time")


class Certificates(Table):
    """Files of certificates; empty: fedtl's own in ``tls/``."""

    certificate: str = Field("", description="server's certificate and those it is signed by, PEM")
    key: str = Field("", description="private key of the certificate, PEM without password")
    ca: str = Field("", description="root certificate that sites check the certificate by")

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        if len({bool(self.certificate), bool(self.key), bool(self.ca)}) > 1:
            raise ValueError("certificate, key and ca belong together: name all three or none")
        return self


class ServerConfig(Table):
    """The values of ``server.toml``."""

    name: str = Field(pattern=NAME, description="of the coordinator")
    address: str = Field(pattern=ADDRESS, description="host:port by which sites reach it")
    listen: tuple[Annotated[str, Field(pattern=LISTEN)], ...] = Field(
        min_length=1, description="addresses of this machine that the proxy listens on"
    )
    superlink_port: int = Field(ge=1, le=65535, description="of SuperLink, on loopback only")
    metrics_port: int = Field(0, ge=0, le=65535, description="for Prometheus, on loopback; 0: off")
    tls: Certificates = Certificates()
    limits: Limits = Limits()


SERVER = TomlKind(
    "server configuration",
    ServerConfig,
    absent="Make a coordinator's folder with `fedtl server init FOLDER --address HOST:PORT`.",
    look_up="`fedtl server init` writes a server.toml in which every key is explained.",
    error=ConfigError,
)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator's folder.

    Attributes
    ----------
    folder : Path
        Absolute.
    config : ServerConfig
        From ``server.toml``.
    """

    folder: Path
    config: ServerConfig

    @property
    def host(self) -> str:
        """Name or IP address of the server, as sites write it."""
        return self.config.address.rpartition(":")[0]

    @property
    def database(self) -> Path:
        """SuperLink's memory: nodes, runs, messages."""
        return self.folder / "superlink.sqlite"

    @property
    def flower_home(self) -> Path:
        """Flower's own folder; its ``config.toml`` names the connection over loopback."""
        return self.folder / FLOWER_HOME

    @property
    def own_ca(self) -> Path:
        """Certificate of the folder's own authority, which SuperLink's loopback port uses."""
        return self.folder / TLS / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Certificate that sites see."""
        return self._or_own(self.config.tls.certificate, "server.crt")

    @property
    def key(self) -> Path:
        """Private key of the certificate that sites see."""
        return self._or_own(self.config.tls.key, "server.key")

    @property
    def ca(self) -> Path:
        """Certificate that sites check the server by."""
        return self._or_own(self.config.tls.ca, "ca.crt")

    @property
    def has_own_certificate(self) -> bool:
        """Whether the certificate that sites see is made by fedtl."""
        return not self.config.tls.certificate

    def identity(self) -> Identity:
        """Return the key by which the coordinator signs its runs.

        Raises
        ------
        ConfigError
            It is missing or damaged.
        """
        path = self.folder / KEY_FILE
        try:
            return _identity(path.read_bytes(), path)
        except OSError as error:
            raise _damaged(path) from error

    def _or_own(self, named: str, own: str) -> Path:
        return self.folder / (named or Path(TLS) / own)


def _identity(private: bytes, path: Path) -> Identity:
    if len(private) != len(Identity.new().private):
        raise _damaged(path)
    return Identity(private)


def _damaged(path: Path) -> ConfigError:
    return ConfigError(
        f"The coordinator's key '{path}' is missing or damaged.",
        next_step="Put it back from a copy: to the sites, a new key is another coordinator.",
        code="server.key",
    )


def read_server(folder: Path) -> Coordinator:
    """Read a coordinator's folder.

    Raises
    ------
    ConfigError
        There is no ``server.toml``, or it cannot be used.
    """
    folder = folder.resolve()
    path = folder / SERVER_FILE
    try:
        return Coordinator(folder, ServerConfig.model_validate(SERVER.read(path)))
    except ValidationError as error:
        raise SERVER.explain(error, str(path)) from error
