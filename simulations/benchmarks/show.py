"""The benchmarks' table on screen, as Markdown, as JSON and as a plot; see ``run.py``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Figures, Line
from rich.console import Console
from rich.table import Table

COLUMNS = ("what", "against", "aim", "measured", "fedtl and the other", "met")
VERSIONED = ("fedtl", "flwr", "torch", "timm", "onnxruntime", "opacus", "numpy")


def machine() -> dict[str, Any]:
    """Describe the machine, without naming it."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "processor": _processor(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONED},
    }


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def cells(line: Line) -> tuple[str, ...]:
    """Return a line's cells in the order of :data:`COLUMNS`."""
    met = "yes" if line.met else "no"
    return line.what, line.against, line.aimed, line.shown, line.absolute, met


def to_screen(lines: Sequence[Line], console: Console) -> None:
    """Print the table."""
    table = Table(*COLUMNS, title="Speed and memory", title_justify="left")
    for line in lines:
        table.add_row(*cells(line), style="green" if line.met else "red")
    console.print(table)
    for note in _notes(lines):
        console.print(f"  {note}")


def _notes(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.note for line in lines if line.note))


def to_files(lines: Sequence[Line], runs: Sequence[Figures], *, out: Path, quick: bool) -> None:
    """Write ``benchmarks.json``, ``.md``, ``.svg`` and ``.png``."""
    out.mkdir(parents=True, exist_ok=True)
    here = machine()
    report = {
        "quick": quick,
        "machine": here,
        "lines": [{**asdict(line), "measured": line.measured, "met": line.met} for line in lines],
        "runs": list(runs),
    }
    text = json.dumps(report, indent=1) + "\n"
    (out / "benchmarks.json").write_text(text, encoding="utf-8")
    (out / "benchmarks.md").write_text(_markdown(lines, here, quick=quick), encoding="utf-8")
    _draw(lines, out)


def _markdown(lines: Sequence[Line], here: dict[str, Any], *, quick: bool) -> str:
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(cells(line) for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    where = ", ".join(f"{name} {value}" for name, value in here.items())
    small = "Small sizes for a quick look: the aims do not apply to them.\n\n" if quick else ""
    notes = "".join(f"* {note}\n" for note in _notes(lines))
    return (
        f"# Speed and memory\n\n{small}{table}\n\n{notes}* Medians over the repetitions, with the "
        f"range; all contenders took turns, each in a process of its own.\n* Machine: {where}.\n"
    )


def _draw(lines: Sequence[Line], out: Path) -> None:
    """Draw how far each figure is beyond its aim: 1 is the aim, to the right is better."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 0.55 * len(lines) + 1.4), layout="constrained")
    for at, line in enumerate(lines):
        beyond = [v / line.aim if line.at_least else line.aim / max(v, 1e-12) for v in line.values]
        middle = sorted(beyond)[len(beyond) // 2]
        axes.barh(at, middle, color="#2a7f62" if line.met else "#b5482f", height=0.6)
        axes.plot([min(beyond), max(beyond)], [at, at], color="black", linewidth=1.2)
    labels = [f"{line.what}\nvs {line.against}: {line.shown}" for line in lines]
    axes.set_yticks(range(len(lines)), labels, fontsize=6.5)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("measured / aim (aim / measured where less is better), log scale; 1 is the aim")
    for kind in ("svg", "png"):
        figure.savefig(out / f"benchmarks.{kind}", dpi=150)
    pyplot.close(figure)
