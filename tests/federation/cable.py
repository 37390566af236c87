"""The cable to another machine, which tests cut and slow down."""

from __future__ import annotations

import subprocess

from machines import Machine


class Cable:
    """The way to another machine, a network namespace; or why there is none."""

    def __init__(self, machine: Machine) -> None:
        self.here, self.device = machine.here, machine.cable
        self.behind, self.reason = machine.prefix, machine.reason

    def change(self, *command: str) -> None:
        """Cut the cable, mend it, or make it slow."""
        subprocess.run(command, check=True, capture_output=True)

    def cut(self) -> None:
        """Let nothing pass any more; nobody is told."""
        self.change("ip", "link", "set", self.device, "down")

    def mend(self) -> None:
        """Let everything pass again."""
        self.change("ip", "link", "set", self.device, "up")

    def slow(self, rate: str) -> None:
        """Let so much pass in a second, in both directions."""
        limits = ("root", "tbf", "rate", rate, "burst", "16k", "latency", "2s")
        self.change("tc", "qdisc", "add", "dev", self.device, *limits)
        self.change(*self.behind, "tc", "qdisc", "add", "dev", f"{self.device}b", *limits)

    def fast(self) -> None:
        """Undo :meth:`slow`."""
        self.change("tc", "qdisc", "del", "dev", self.device, "root")
        self.change(*self.behind, "tc", "qdisc", "del", "dev", f"{self.device}b", "root")
