"""The files that a new site starts from: commented, private, and never in the place of others."""

from __future__ import annotations

import re
from pathlib import Path

import tomli_w

from fedtl.errors import ConfigError
from fedtl.home import unwritable, write_atomic
from fedtl.site.config import POLICY_FILE, SITE_FILE, load_config
from fedtl.site.names import NAME
from fedtl.site.node_key import make_node_key

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700

_SITE = """\
# What this machine needs to know to take part in a federation. Nothing here leaves it but the name.
# Relative paths start at this file's folder. `fedtl site check` says whether all of it works.

# Public name of this site; the coordinator and the other sites see it.
{name}
# Where the backbone runs: auto, cpu, cuda or mps.
device = "auto"
# CPU threads; 0 is all cores.
threads = 0
# Unix user of Flower's SuperNode, which runs code of the coordinator, where root starts this site.
# Empty: the same user.
supernode_user = ""
# Port on which this machine alone may read metrics (Prometheus); 0: off.
metrics_port = 0

[data]
# A folder with one sub-folder per class, a .csv with the columns path,label[,group][,split], or a
# .npz file. Several images of one patient: use a .csv with the column group.
{source}
# Share of the examples (or groups) that is held out for testing, drawn by hash.
test_fraction = 0.2
# All classes of the federation, in order; needed if this site does not have every class.
classes = []
# Files that may be unreadable and are left out.
tolerate_unreadable = 0

[backbone]
# As in the recipe of the federation, so that the check looks at what training will see, and the
# features can be made before the first run. Empty: as the coordinator sends it. One that is sent
# takes this one's place, if policy.toml accepts backbones.
name = "tf_efficientnet_lite0"
# A weight file or folder; empty: what is on this machine already.
weights = ""
# Side of the images in pixels; 0 is the backbone's own.
image_size = 0
# auto, onnx, torch or reference.
engine = "auto"

[server]
# host:port of the federation's server, and the files by which both know each other. What is empty
# is taken from the invitation (`fedtl site join`), and node.key is this site's key.
address = ""
root_certificates = ""
private_key = ""
public_key = ""
"""

_POLICY = """\
# What this site allows, whatever a recipe asks for. A request that breaks a rule is refused with a
# code, and nothing is computed. Without this file, a strict default holds: as below, but without a
# budget of its own.

# May updates leave that are neither private by a plan nor hidden in a sum? A raw gradient of one
# example gives away its features and its label.
unprotected = false
# May the coordinator be told how much of the budget is left?
tell_budget = false
# May updates leave only hidden in a sum (secure aggregation), also those that are private?
only_sealed = false
# May held-out results and counts of labels leave without noise?
clear_metrics = false
# Held-out examples (or groups) below which nothing is told in clear; 0: always told.
suppress_below = 5
# Training examples below which this site takes no part; 0: any number.
least_examples = 0
# Sites that must be left in a sum for this site's update to be hidden in it; 0: what is agreed.
least_sites = 0
# May the coordinator send the backbone? It is a model file: checked by its digest, read as
# safetensors, never run as code. false: only the one that site.toml names.
accept_backbones = true
# Kinds of releases that a run's plan may contain: gradients, statistics, mean, covariance, sums,
# labels, metrics. Empty: any.
releases = []
# Client-side steps, sums and personal heads beside fedtl's own that a strategy may ask for:
# "path/to/file.py:Class" here, or names that installed packages register. Their code runs on this
# site's examples: read it first.
objectives = []
# Who may ask, and for what: SHA-256 fingerprints of coordinators and digests of recipes. Empty:
# those of the invitation; without one, anybody and any recipe.
coordinators = []
recipes = []

# What any record may spend, over all runs. Without this table: what the plan of each run says.
[budget]
epsilon = 8.0
# Well below 1 / number of examples.
delta = 1e-5
# Releases older than this no longer count. Left out: they count for ever.
# period_days = 365
"""


def make_site(folder: Path, *, name: str, source: str = "") -> None:
    """Write a state folder that only its owner can read, and make the key of its site.

    Parameters
    ----------
    folder : Path
        New, or empty but for a ledger that was put back.
    name, source : str
        For ``site.toml``.

    Raises
    ------
    ConfigError
        There are files already (``config.exists``), or the name or the source cannot be written.
    CacheError
        The folder cannot be written.
    """
    check_name(name)
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        folder.chmod(PRIVATE_FOLDER)
    except OSError as error:
        raise unwritable(folder, error) from error
    filled = _SITE.format(name=_line("name", name), source=_line("source", source))
    _write(folder / POLICY_FILE, _POLICY)
    _write(folder / SITE_FILE, filled)
    load_config(folder / SITE_FILE)
    make_node_key(folder)


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()), mode=PRIVATE_FILE)


def check_name(name: str) -> None:
    """Refuse a name that others could not write.

    Raises
    ------
    ConfigError
        With code ``config.invalid``.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"The site's name {name!r} cannot be used.",
            next_step="Use up to 61 letters, digits, dots, dashes and underscores, beginning with "
            "a letter or a digit: --name north-hospital.",
        )


def name_for(folder: Path) -> str:
    """Return a name after a folder.

    Examples
    --------
    >>> name_for(Path("/srv/north hospital")), name_for(Path("/"))
    ('north-hospital', 'site')
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:61]
    return name if re.fullmatch(NAME, name) else "site"


def check_new(folder: Path) -> None:
    """Refuse a folder that holds anything but a ledger that was put back.

    Raises
    ------
    ConfigError
        With code ``config.exists``.
    """
    try:
        found = sorted(child.name for child in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(folder, error) from error
    if others := [name for name in found if not name.startswith("ledger.sqlite")]:
        shown = ", ".join(others[:3]) + (" and more" if len(others) > 3 else "")
        raise ConfigError(
            f"The folder '{folder}' is not empty ({shown}); nothing was written.",
            next_step="Name a new folder; files of a site that is there are edited by hand.",
            code="config.exists",
        )


def _line(key: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{key} = {value!r} is not valid UTF-8, so no TOML file can hold it.",
            next_step="Give the folder another name, or link to it under one.",
        ) from error
    return tomli_w.dumps({key: value}).rstrip("\n")
