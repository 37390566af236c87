"""Where a federated run stands, in a file that any process may look at while it goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flwr.app import Message

from fedtl.errors import CacheError
from fedtl.home import write_atomic
from fedtl.rounds.check import failure_code
from fedtl.transport.wrappers import content_bytes

FILE = "progress.json"
State = Literal["waiting", "running", "finished", "failed", "stopped"]
_DOING = {"train": "training", "evaluate": "evaluating", "query": "answering"}


@dataclass(frozen=True, slots=True)
class SiteProgress:
    """One site, as the server sees it.

    Attributes
    ----------
    state : str
        ``training``, ``done``, ``failed``, ``absent``, ``preparing`` and the like.
    detail : str
        A failure code, or why a site is left out.
    seconds : float
        That its last answer took, or that it is being waited for.
    down, up : int
        Bytes of arrays so far.
    epsilon : float or None
        Privacy that it has spent in this run, as far as the server can tell.
    left : float or None
        Epsilon that is left of its own budget, if it tells that.
    """

    name: str
    state: str = ""
    detail: str = ""
    seconds: float = 0.0
    down: int = 0
    up: int = 0
    epsilon: float | None = None
    left: float | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands.

    Attributes
    ----------
    state : {"waiting", "running", "finished", "failed", "stopped"}
        Waiting for sites, or in its rounds, or at its end.
    round, rounds : int
        Finished rounds, and those of the whole run.
    said : str
        What is going on, or what went wrong and what to do about it.
    accuracy : float or None
        Of the last head that was evaluated.
    updated : float
        Unix time, seconds.
    pid : int
        Of the process that runs it, on the coordinator's machine.
    """

    state: State = "waiting"
    round: int = 0
    rounds: int = 0
    said: str = ""
    accuracy: float | None = None
    updated: float = 0.0
    pid: int = 0
    sites: tuple[SiteProgress, ...] = ()


def read_progress(folder: Path) -> RunProgress | None:
    """Read where a run stands; None before it has begun.

    Raises
    ------
    CacheError
        The file is damaged.
    """
    try:
        raw = json.loads((folder / FILE).read_text("utf-8"))
        sites = tuple(SiteProgress(**site) for site in raw.pop("sites"))
        return RunProgress(**raw, sites=sites)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CacheError(
            f"'{folder / FILE}' is damaged.", next_step="Resume the run; it is written anew."
        ) from error


@dataclass
class Watch:
    """Writes the file; the server's story tells it what happens.

    Attributes
    ----------
    folder : Path
        Of the run.
    names : mapping of int to str
        Node id to site name, as far as known.
    """

    folder: Path
    names: dict[int, str] = field(default_factory=dict)
    _run: RunProgress = RunProgress()
    _sites: dict[str, SiteProgress] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)

    def tell(self, **changes: Any) -> None:
        """Change what is said of the run."""
        self._run = replace(self._run, **changes)
        self._write()

    def site(self, name: str, **changes: Any) -> None:
        """Change what is said of a site."""
        self._sites[name] = replace(self._sites.get(name, SiteProgress(name)), **changes)

    def sent(self, messages: Sequence[Message]) -> None:
        """Note that messages are on their way."""
        for message in messages:
            name = self.names.get(message.metadata.dst_node_id)
            if name is None:
                continue
            kind = message.metadata.message_type.partition(".")[0]
            self._since[name] = time.monotonic()
            down = self._sites[name].down if name in self._sites else 0
            n_bytes = down + content_bytes(message)
            self.site(name, state=_DOING.get(kind, "asked"), down=n_bytes)
        self._write()

    def replied(self, reply: Message) -> None:
        """Note that a reply came."""
        name = self.names.get(reply.metadata.src_node_id)
        if name is None:
            return
        took = time.monotonic() - self._since.get(name, time.monotonic())
        failed = reply.has_error()
        up = (self._sites[name].up if name in self._sites else 0) + content_bytes(reply)
        self.site(
            name,
            state="failed" if failed else "done",
            detail=failure_code(reply) if failed else "",
            seconds=took,
            up=up,
        )
        self._write()

    def offline(self, node: int) -> None:
        """Note that a node that is waited for cannot be reached."""
        if name := self.names.get(node):
            self.site(name, state="offline")
            self._write()

    def failed(self, failures: Mapping[str, str]) -> None:
        """Note whose update a round could not use, and why; it stands there until a better one."""
        for name, code in failures.items():
            self.site(name, state="failed", detail=code)

    def left_out(self, reasons: Mapping[str, str]) -> None:
        """Note who cannot take part, and why."""
        for name, why in reasons.items():
            self.site(name, state="left out", detail=why)
        self._write()

    def _write(self) -> None:
        sites = tuple(site for _, site in sorted(self._sites.items()))
        run = replace(self._run, sites=sites, updated=time.time(), pid=os.getpid())
        text = json.dumps(asdict(run))
        write_atomic(self.folder / FILE, lambda file: file.write(text.encode()))
