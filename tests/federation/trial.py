"""A federation of real processes: how the tests here set it up, run it, break it and look at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from flwr.app import Context
from machines import eventually

from fedtl.agent.client import AgentClient
from fedtl.apps.client import make_client_app
from fedtl.errors import TransportError
from fedtl.launch import services
from fedtl.launch.coordinator.enrol import invite
from fedtl.launch.federate import federate
from fedtl.launch.opening import card_of
from fedtl.launch.own_site import SOCKET
from fedtl.launch.preparing import open_data, with_features
from fedtl.launch.run_folder import claim
from fedtl.launch.services import Service
from fedtl.launch.site_services import AGENT, check_joined, supernode_of
from fedtl.launch.site_state import facts, findings, site_state
from fedtl.launch.watch import RunProgress, read_progress
from fedtl.modules import load_module
from fedtl.privacy.ledger import Ledger
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe, replaced
from fedtl.site.config import read_site
from fedtl.site.folder import make_site
from fedtl.site.invitation import read_invitation
from fedtl.site.joining import keep_invitation
from fedtl.site.site import Site
from fedtl.transport.local import LocalGrid
from fedtl.types import Arrays

FEDTL = Path(sys.executable).parent / "fedtl"
OPEN = "unprotected = true\nclear_metrics = true\nsuppress_below = 0\n"
"""A policy under which runs with and without noise are allowed."""
STEPS = 1500
"""Of a training: some tenths of a second, in which a process can be killed."""


def recipe(
    name: str,
    *,
    rounds: int = 3,
    noise: bool = False,
    strategy: str = "fedavg",
    **federation: object,
) -> Recipe:
    """Return a small recipe; without noise every run of it ends with the same head."""
    tables: dict[str, Any] = {
        "name": name,
        "backbone": {"image_size": 32},
        "train": {"rounds": rounds, "local_steps": STEPS, "lr": 0.5},
        "privacy": {"enabled": noise},
        "strategy": {"name": strategy},
        "transport": {"timeout": 90.0},
        "compare": {"without_privacy": False, "local_only": False},
        "federation": {"least_sites": 2, "wait": 180.0, "patience": 60.0, **federation},
    }
    if noise:
        tables["privacy"] |= {"public_size": 40, "metrics": "noised", "epsilon": 100.0}
    return Recipe.model_validate(tables)


@dataclass
class Following:
    """A ``fedtl run`` that somebody follows."""

    process: subprocess.Popen[bytes]
    said: Path
    runs: Path
    name: str

    @property
    def folder(self) -> Path:
        """The run folder."""
        return next(self.runs.glob(f"{self.name}-*"))

    @property
    def text(self) -> str:
        """Everything that was printed."""
        return self.said.read_text()

    def progress(self) -> RunProgress:
        """Return where the run stands."""
        told = [read_progress(folder) for folder in self.runs.glob(f"{self.name}-*")]
        return next(filter(None, told), RunProgress())

    def reached(self, round_: int) -> bool:
        """Wait until so many rounds are finished, or the run has ended."""
        eventually(lambda: self.process.poll() is not None or self.has(round_), 240)
        return self.has(round_)

    def has(self, round_: int) -> bool:
        """Say whether so many rounds are finished."""
        told = self.progress()
        return told.state in ("running", "finished") and told.round >= round_

    def doing(self, site: str, state: str) -> bool:
        """Wait until a site does something."""
        return eventually(lambda: self.state_of(site) == state, pause=0.02)

    def state_of(self, site: str) -> str:
        """Return what is said of a site."""
        return next((s.state for s in self.progress().sites if s.name == site), "")

    def ends(self, seconds: float = 300) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(seconds)


@dataclass
class Trial:
    """A coordinator that is up, and sites with small data of their own."""

    place: Path
    names: tuple[str, ...] = ("north", "south", "west")

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.place / "c"

    def site(self, name: str) -> Path:
        """Return a site's state folder."""
        return self.place / name

    def make(self, name: str, *, policy: str = OPEN, called: str = "", folder: str = "") -> Path:
        """Set up a site, let it in as ``name``, and have it join.

        Parameters
        ----------
        called : str
            What the site calls itself, if that differs.
        folder : str
            Its state folder, if that is not its name.
        """
        state = self.site(folder or name)
        data = self.place / f"{folder or name}.npz"
        pictures(data, seed=len(folder or name) + ord((folder or name)[0]))
        make_site(state, name=called or name, source=str(data))
        settings = state / "site.toml"
        settings.write_text(settings.read_text().replace("image_size = 0", "image_size = 32"))
        (state / "policy.toml").write_text(policy)
        out = self.place / f"{state.name}.invite"
        invite(self.coordinator, name, key=state / "node.pub", out=out)
        keep_invitation(state, read_invitation(out))
        return state

    def up(
        self,
        name: str,
        *,
        agent: Sequence[str] = (str(FEDTL), "site", "agent"),
        behind: Sequence[str] = (),
        **variables: str,
    ) -> None:
        """Start agent and SuperNode of a site.

        Parameters
        ----------
        agent : sequence of str
            An agent, called with the state folder.
        behind : sequence of str
            Runs a command on another machine.
        **variables : str
            For the environment of both.
        """
        site = read_site(self.site(name))
        check_joined(site)
        node = supernode_of(site)
        mode = ("--mode", "660") if node.user else ()
        wanted = (
            Service(AGENT, (*behind, *agent, str(site.folder), *mode), variables, stop_seconds=30),
            replace(
                node,
                command=(*behind, *node.command),
                environment={**node.environment, **variables},
            ),
        )
        services.start(site.folder, wanted)

    def down(self, *names: str) -> None:
        """Stop sites, side by side: each takes seconds."""
        with ThreadPoolExecutor() as stopping:
            list(stopping.map(services.stop, map(self.site, names)))

    def ready(self, *names: str) -> bool:
        """Wait until sites have their features and are connected."""

        def connected(name: str) -> bool:
            told = self.status(name)
            return bool(told["connected"] and told["agent"] and told["agent"]["state"] == "ready")

        return all(eventually(lambda: connected(name), pause=0.5) for name in names)  # noqa: B023

    def status(self, name: str) -> dict[str, Any]:
        """Return what ``fedtl site status`` says."""
        state = site_state(read_site(self.site(name)))
        return facts(state, list(findings(state)))

    def pid(self, folder: str, service: str) -> int:
        """Return the process id of a service; 0 if it does not run."""
        found = services.status(self.place / folder)
        return next((s.pid for s in found if s.name == service), 0)

    def kill(self, folder: str, service: str) -> None:
        """Kill a service's process, as the kernel does when memory runs out."""
        os.kill(self.pid(folder, service), signal.SIGKILL)

    def training(self, name: str) -> bool:
        """Wait until a site's agent is at work on a training."""
        agent = AgentClient(self.site(name) / SOCKET)

        def works() -> bool:
            with suppress(TransportError):
                return agent.status().busy == "train"
            return False

        return eventually(works, pause=0.01)

    def server_apps(self) -> list[psutil.Process]:
        """Return the processes that tell a run's story."""
        found = services._processes(self.coordinator.resolve())
        return [p for p in found if "flwr-serverapp" in " ".join(p.cmdline())]

    @contextmanager
    def run(self, wanted: Recipe, *, resume: Path | None = None) -> Iterator[Following]:
        """Run a recipe, or go on with a run of it; stop following at the end."""
        file = self.place / f"{wanted.name}.toml"
        file.write_text(wanted.to_toml())
        options = ["--resume", str(resume)] if resume else [str(file)]
        said = self.place / f"said-{time.monotonic_ns()}"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [FEDTL, "run", *options, "--on", self.coordinator],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Following(process, said, self.coordinator / "runs", wanted.name)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def simulated(self, wanted: Recipe, names: Sequence[str]) -> Arrays:
        """Return the head of a run without noise whose sites live in this process."""
        wanted = replaced(wanted, federation={"patience": 0.0, "least_sites": 1})
        folder = self.place / "simulated" / f"{wanted.name}-{len(names)}-{time.monotonic_ns()}"
        claim(folder, wanted)
        with Ledger.open(folder / "ledger.sqlite") as ledger:
            sites = {name: self._opened(name, wanted, ledger) for name in names}

            def site_of(context: Context) -> Site:
                return sites[str(context.node_config["site"])]

            grid = LocalGrid(make_client_app(site_of), list(names))
            federate(folder, grid, Identity((self.coordinator / "coordinator.key").read_bytes()))
        return load_module(folder / "module").head

    def _opened(self, name: str, wanted: Recipe, ledger: Ledger) -> Site:
        read = read_site(self.site(name))

        def silent(phase: str, done: int, total: int) -> None:
            pass

        manifest, card = open_data(read, silent), card_of(wanted.backbone)
        return with_features(read, manifest, card, ledger=ledger, progress=silent)


def pictures(path: Path, seed: int) -> None:
    """Write sixty pictures of two kinds."""
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 2
    x = rng.integers(0, 130, (60, 12, 12)) + 90 * y[:, None, None]
    np.savez(path, x=x.astype(np.uint8), y=y, class_names=np.array(["benign", "malignant"]))
