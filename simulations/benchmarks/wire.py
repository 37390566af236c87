"""The comparison ``wire``: what Flower's deployment runtime costs; see ``run.py``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from measure import Bench, Figures, Line, middle


@dataclass(frozen=True, slots=True)
class WireSizes:
    """How many nodes, and how often they are asked."""

    nodes: int = 10
    phases: int = 2
    alternations: int = 2
    rows: int = 6000
    fleets: tuple[int, ...] = (10, 50, 200)
    rounds: int = 2


FULL_WIRE = WireSizes()
QUICK_WIRE = WireSizes(nodes=2, phases=1, alternations=1, rows=600, fleets=(2,), rounds=1)


def wire(bench: Bench, sizes: WireSizes) -> Iterator[Line]:
    """Hold a round to an idle phase, the agent to its time, and the server to its memory."""
    yield from _against_idle(bench, sizes)
    yield from _agent(bench, sizes)
    yield from _many(bench, sizes)


def _against_idle(bench: Bench, sizes: WireSizes) -> Iterator[Line]:
    asked = ("--nodes", sizes.nodes, "--phases", sizes.phases, "--alternations", sizes.alternations)
    found = bench.alternate({"Flower and fedtl, wire": bench.own("own_wire.py", *asked)})
    (both,) = found.values()
    idle, busy = (_all(both, f"{kind}_seconds") for kind in ("nothing", "round"))
    yield Line(
        f"round of {sizes.nodes} sites on SuperLink, features warm",
        "a phase of Flower's with nothing to do",
        1.3,
        False,
        _all(both, "ratios"),
        "x",
        f"{sorted(busy)[len(busy) // 2]:.1f} and {sorted(idle)[len(idle) // 2]:.1f} s",
        "wire: one SuperLink, every SuperNode a process, agents of 600 x 1,281 features in one "
        "process, a head of 51 kB; a round trains (one private full-batch step) and evaluates; in "
        f"it, a ClientApp's process takes {middle(both, 'start_seconds'):.2f} s to start when "
        f"alone ({middle(both, 'flower_imports_seconds'):.2f} s are Flower's imports, "
        f"{1e3 * middle(both, 'own_imports_seconds'):.0f} ms fedtl's), the agent "
        f"{middle(both, 'agent_seconds'):.2f} s to answer; processor time of a ClientApp "
        f"{middle(both, 'round_cpu_seconds'):.2f} s, of one with nothing to do "
        f"{middle(both, 'nothing_cpu_seconds'):.2f} s",
    )


def _agent(bench: Bench, sizes: WireSizes) -> Iterator[Line]:
    found = bench.alternate({"fedtl, agent": bench.own("own_agent.py", "--rows", sizes.rows)})
    (own,) = found.values()
    yield Line(
        f"agent's answer, {sizes.rows:,} x 1,281, an epoch of DP-SGD",
        "a fixed limit",
        0.3,
        False,
        tuple(f["seconds_per_answer"] for f in own),
        "s",
        f"slowest {middle(own, 'slowest_seconds'):.2f} s, the very first "
        f"{middle(own, 'first_seconds'):.2f} s",
        f"agent: Poisson batches of {own[0]['batch']} expected, {own[0]['steps']} steps, over its "
        "socket, with charge, noise of the system and stored reply",
    )


def _many(bench: Bench, sizes: WireSizes) -> Iterator[Line]:
    rounds = ("--rounds", sizes.rounds)
    found = bench.alternate(
        {
            f"fedtl, {n} nodes": bench.own("own_superlink.py", "--nodes", n, *rounds)
            for n in sizes.fleets
        }
    )
    everyone = list(found.values())
    first, last = everyone[0], everyone[-1]
    few, many = sizes.fleets[0], sizes.fleets[-1]
    counts = " / ".join(map(str, sizes.fleets))
    key = "seconds_per_round"
    yield Line(
        f"round of {many} nodes, by node",
        f"{few} nodes, by node",
        2,
        False,
        tuple(m[key] / many / (f[key] / few) for m, f in zip(last, first, strict=True)),
        "x",
        f"{_each(found, key, '.1f')} s with {counts} nodes",
        "nodes: threads of one process on the same machine, which look for a message every 3 s as "
        "SuperNodes do and answer at once; SuperLink keeps its database on disk; it answered "
        f"{_each(found, 'superlink_errors', '.0f')} calls with an error, after which they were "
        f"made again, and {_each(found, 'lost', '.0f')} answers did not come in time",
    )
    yield Line(
        f"server's peak memory, {many} nodes",
        "a fixed limit",
        2,
        False,
        tuple(f["superlink_peak_gb"] + f["server_app_peak_gb"] for f in last),
        "GB",
        f"SuperLink {_each(found, 'superlink_peak_gb', '.2f')}, ServerApp "
        f"{_each(found, 'server_app_peak_gb', '.2f')} GB with {counts} nodes",
    )


def _each(found: dict[str, list[Figures]], key: str, form: str) -> str:
    return " / ".join(format(middle(figures, key), form) for figures in found.values())


def _all(figures: list[Figures], key: str) -> tuple[float, ...]:
    return tuple(value for one in figures for value in one[key])
