"""A site's own two files: ``site.toml``, where its data are, and ``policy.toml``, what it allows.

They are the boundary: pydantic reads them, and inside fedtl a policy is the frozen
:class:`~fedtl.site.policy.SitePolicy`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from fedtl.errors import ConfigError
from fedtl.privacy.ledger import Budget
from fedtl.privacy.release import Mechanism
from fedtl.recipe import Backbone
from fedtl.recipe.explain import TomlKind, resolve_path
from fedtl.recipe.tables import Table
from fedtl.site.invitation import INVITATION_FILE, Invitation, read_invitation
from fedtl.site.names import ADDRESS, NAME, Fingerprint
from fedtl.site.policy import STRICT, SitePolicy

SITE_FILE, POLICY_FILE, IDENTITY = "site.toml", "policy.toml", "identity.key"
"""In a state folder; the last is the key by which other sites know this one."""
ROOT_CERTIFICATES = "coordinator.pem"
"""In a state folder, once it has joined: what the server's certificate is signed by."""
_PATHS = (
    *("data.source", "backbone.weights"),
    *("server.root_certificates", "server.private_key", "server.public_key"),
)
_ACCELERATORS = ("cuda", "mps")


class SiteData(Table):
    """Where a site's examples are; the keys of a recipe's table ``data`` that are the site's."""

    source: str = Field("", description="a folder with one sub-folder per class, a .csv or a .npz")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share held out, by hash")
    classes: tuple[str, ...] = Field((), description="all classes of the federation, in order")
    tolerate_unreadable: int = Field(0, ge=0, description="unreadable files accepted")


class SiteBackbone(Backbone):
    """Which backbone makes the features; another that the coordinator sends takes its place."""

    name: str = Field(Backbone().name, description="any timm model; empty: as it is sent")


class Server(Table):
    """Where the federation's server is, and how the site and it know each other.

    What is empty is taken from the invitation.
    """

    address: str = Field("", pattern=f"^$|{ADDRESS}", description="host:port")
    root_certificates: str = Field("", description="certificates that the server's is signed by")
    private_key: str = Field("", description="by which the server knows this site: node.key")
    public_key: str = Field("", description="its other half")


class SiteConfig(Table):
    """``site.toml``: what this machine needs to know to take part."""

    name: str = Field(pattern=NAME, description="public name in the federation")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="for the backbone")
    threads: int = Field(0, ge=0, description="CPU threads; 0 is all cores")
    supernode_user: str = Field("", description="Unix user of the SuperNode; empty: the agent's")
    metrics_port: int = Field(0, ge=0, le=65535, description="for Prometheus; 0: off")
    data: SiteData = SiteData()
    backbone: SiteBackbone = SiteBackbone()
    server: Server = Server()

    @model_validator(mode="after")
    def _agree(self) -> SiteConfig:
        engine, server = self.backbone.engine, self.server
        if self.device in _ACCELERATORS and engine in ("onnx", "reference"):
            raise ValueError(
                f"device = '{self.device}' does not go with backbone.engine = '{engine}', which "
                "runs on the CPU"
            )
        if bool(server.private_key) != bool(server.public_key):
            raise ValueError("server.private_key and server.public_key belong together")
        return self


class BudgetTable(Table):
    """What any record may spend, over all runs."""

    epsilon: float = Field(gt=0, description="at most so much, everything composed")
    delta: float = Field(gt=0, lt=1, description="well below 1 / examples")
    period_days: float | None = Field(None, gt=0, description="left out: for ever")


class PolicyFile(Table):
    """``policy.toml``: what the site allows, whatever a recipe asks for."""

    budget: BudgetTable | None = None
    tell_budget: bool = STRICT.tell_budget
    unprotected: bool = STRICT.unprotected
    only_sealed: bool = STRICT.only_sealed
    clear_metrics: bool = STRICT.clear_metrics
    suppress_below: int = Field(STRICT.suppress_below, ge=0)
    least_examples: int = Field(STRICT.least_examples, ge=0)
    least_sites: int = Field(STRICT.least_sites, ge=0)
    accept_backbones: bool = STRICT.accept_backbones
    releases: tuple[Mechanism, ...] = ()
    objectives: tuple[str, ...] = ()
    coordinators: tuple[Fingerprint, ...] = ()
    recipes: tuple[Fingerprint, ...] = ()

    @model_validator(mode="after")
    def _agree(self) -> PolicyFile:
        if self.unprotected and self.only_sealed:
            raise ValueError("unprotected = true and only_sealed = true contradict each other")
        if self.unprotected and self.budget is not None:
            raise ValueError(
                "unprotected = true makes [budget] empty: an unprotected update gives away what "
                "the budget protects, and costs nothing of it"
            )
        return self

    def to_policy(self) -> SitePolicy:
        """Return the rules as the site keeps to them."""
        budget = None if self.budget is None else Budget(**self.budget.model_dump())
        return SitePolicy(**{**dict(self), "budget": budget})


SITE = TomlKind(
    "site file",
    SiteConfig,
    absent="`fedtl site init` writes one to start from.",
    look_up="`fedtl site init` writes a file that lists keys, defaults and meanings.",
    error=ConfigError,
)
POLICY = TomlKind(
    "policy file",
    PolicyFile,
    absent="`fedtl site init` writes one to start from.",
    look_up=SITE.look_up,
    error=ConfigError,
)


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """A site's state folder, read.

    Attributes
    ----------
    folder : Path
        Where it is.
    config : SiteConfig
        From ``site.toml``, with relative paths resolved against the folder; the server's address
        and certificates from the invitation where ``site.toml`` names none.
    policy : SitePolicy
        From ``policy.toml``; where it names no coordinators or recipes, those of the invitation.
    has_policy : bool
        False if there is no such file, so that the strict default holds.
    invitation : Invitation or None
        None before the site has joined.
    named_coordinators : tuple of str
        Those of ``policy.toml`` itself.
    """

    folder: Path
    config: SiteConfig
    policy: SitePolicy
    has_policy: bool
    invitation: Invitation | None = None
    named_coordinators: tuple[str, ...] = ()


def read_site(folder: Path) -> SiteFolder:
    """Read a site's state folder.

    Raises
    ------
    ConfigError
        There is no ``site.toml``, or a file is malformed, has an unknown key, a value out of range
        or values that contradict each other; or the invitation is damaged.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"There is no state folder '{folder}'.",
            next_step=f"Check the path, or make one: fedtl site init '{folder}'.",
        )
    config = load_config(folder / SITE_FILE)
    file = folder / POLICY_FILE
    has_policy = file.exists() or file.is_symlink()
    policy = load_policy(file) if has_policy else STRICT
    if not (joined := folder / INVITATION_FILE).exists():
        return SiteFolder(folder, config, policy, has_policy, None, policy.coordinators)
    invitation, named = read_invitation(joined), policy.coordinators
    config, policy = _reached(folder, config, invitation), _pinned(policy, invitation)
    return SiteFolder(folder, config, policy, has_policy, invitation, named)


def _reached(folder: Path, config: SiteConfig, invitation: Invitation) -> SiteConfig:
    """Return the settings with the way to the server that an invitation names."""
    server = config.server
    found = {
        "address": server.address or invitation.address,
        "root_certificates": server.root_certificates or str(folder.resolve() / ROOT_CERTIFICATES),
    }
    return config.model_copy(update={"server": server.model_copy(update=found)})


def _pinned(policy: SitePolicy, invitation: Invitation) -> SitePolicy:
    """Return the policy of a site that answers the coordinator who invited it, and nobody else."""
    return replace(
        policy,
        coordinators=policy.coordinators or (invitation.fingerprint,),
        recipes=policy.recipes or invitation.recipes,
    )


def load_config(path: Path) -> SiteConfig:
    """Read and check a ``site.toml``."""
    values = SITE.read(path)
    for dotted in _PATHS:
        resolve_path(values, dotted, path.parent)
    try:
        return SiteConfig.model_validate(values)
    except ValidationError as error:
        raise _told(SITE, error, path) from error


def load_policy(path: Path) -> SitePolicy:
    """Read and check a ``policy.toml``; a file that is there but wrong never means a default."""
    try:
        policy = PolicyFile.model_validate(POLICY.read(path)).to_policy()
        beside = tuple(_from(path.parent, name) for name in policy.objectives)
        return replace(policy, objectives=beside)
    except ValidationError as error:
        raise _told(POLICY, error, path) from error


def _from(folder: Path, name: str) -> str:
    """Return an objective's name with the path of its file as seen from a folder."""
    place, colon, cls = name.rpartition(":")
    return f"{folder.absolute() / place}:{cls}" if colon and place.endswith(".py") else name


def _told(kind: TomlKind, error: ValidationError, path: Path) -> Exception:
    """Explain an error; of values that contradict each other no single one is at fault."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error" and not first["loc"]:
        said = first["msg"].removeprefix("Value error, ")
        return ConfigError(f"In {path}: {said}.", next_step="Change one of the two.")
    return kind.explain(error, str(path))
