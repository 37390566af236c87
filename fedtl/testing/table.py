"""The table of which laws known strategies break: ``docs/strategies-checked.md``.

``python -m fedtl.testing.table docs/strategies-checked.md`` writes it anew.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import flwr.serverapp.strategy as flower
import numpy as np
from flwr.serverapp.strategy import Strategy

from fedtl.home import write_atomic
from fedtl.strategies import STRATEGIES, WRAPPERS, instance, make_strategy
from fedtl.testing.bench import NAMES, examples_of
from fedtl.testing.check import examine
from fedtl.testing.laws import LAWS
from fedtl.testing.subject import Given
from fedtl.testing.verdict import Report, Verdict
from fedtl.testing.why import WHY

_PRIVATE = {"noise_multiplier": 0.1, "num_sampled_clients": len(NAMES)}
_OPTIONS: dict[str, Mapping[str, object]] = {
    "FedAvgM": {"server_momentum": 0.9},
    "FedProx": {"proximal_mu": 0.1},
    "QFedAvg": {"client_learning_rate": 0.5},
    "DifferentialPrivacyClientSideFixedClipping": {**_PRIVATE, "clipping_norm": 1.0},
    "DifferentialPrivacyServerSideFixedClipping": {**_PRIVATE, "clipping_norm": 1.0},
    "DifferentialPrivacyClientSideAdaptiveClipping": _PRIVATE,
    "DifferentialPrivacyServerSideAdaptiveClipping": _PRIVATE,
}
"""What Flower's classes are given that say little or nothing without."""
_MARKS = {"kept": "yes", "broken": "**no**", "does not apply": "-"}
_SHORT = {law: law.replace(" ", "<br>") for law in LAWS}


def flowers_own() -> dict[str, Callable[[], Strategy]]:
    """Return all of Flower's strategies by name, ready to be made; wrappers stand around FedAvg."""
    found: dict[str, Callable[[], Strategy]] = {}
    for name in flower.__all__:
        cls = getattr(flower, name)
        if inspect.isclass(cls) and issubclass(cls, Strategy) and not inspect.isabstract(cls):
            found[name] = partial(_made, cls, _OPTIONS.get(name, {}))
    return found


def _made(cls: type[Strategy], options: Mapping[str, object]) -> Strategy:
    wraps = "strategy" in inspect.signature(cls).parameters
    inner = {"strategy": instance(flower.FedAvg)} if wraps else {}
    return instance(cls, {**inner, **options})


def fedtls_own(folder: Path) -> dict[str, Callable[[], Strategy]]:
    """Return fedtl's own strategies and wrappers by name, ready to be made.

    Parameters
    ----------
    folder : Path
        Where FLTrust's own data are written.
    """
    root = folder / "root.npz"
    train = examples_of(0, 30)
    np.savez(root, x=train.x.numpy(), y=train.y.numpy())
    own = [name for name, target in STRATEGIES.items() if not target.startswith("flwr.")]
    options = {"fltrust": {"root": str(root)}}
    made = {name: partial(make_strategy, name, options.get(name, {})) for name in own}
    wrapped = {
        f"{wrapper} around {inner}": partial(make_strategy, inner, around={wrapper: {}})
        for wrapper in WRAPPERS
        if wrapper not in made
        for inner in ["median" if "robust" in WRAPPERS[wrapper] else "fedavg"]
    }
    return {**made, **wrapped}


def page() -> str:
    """Return the whole page."""
    with tempfile.TemporaryDirectory() as folder:
        own = reports(fedtls_own(Path(folder)))
    return "\n".join([*_INTRODUCTION, *_laws(), *_part("fedtl", own), *_flower()]) + "\n"


def reports(strategies: Mapping[str, Given]) -> dict[str, Report]:
    """Return a report on each strategy, by name."""
    return {name: examine(strategy) for name, strategy in strategies.items()}


def _flower() -> Iterator[str]:
    yield from _part("Flower", reports(flowers_own()))


_INTRODUCTION = (
    "# Which laws known strategies keep",
    "",
    "`fedtl check-strategy` tries a strategy on a small federation of real sites and tells which",
    "laws it breaks. This page is what it says of the strategies of fedtl and of all of Flower. It",
    "is written by `python -m fedtl.testing.table docs/strategies-checked.md`; a test compares.",
    "",
    "A broken law is no verdict on a method: it says what a run must not rely on. fedtl's loop",
    "protects runs from some of it (it leaves out failures, orders replies by site, makes heads",
    "float32), Flower's own loop does not.",
    "",
)


def _laws() -> Iterator[str]:
    yield from ("## The laws", "", "| law | says |", "|---|---|")
    yield from (f"| {law.name} | {law.says} |" for law in LAWS.values())
    yield ""


def _part(whose: str, found: Mapping[str, Report]) -> Iterator[str]:
    laws = [law.name for law in LAWS.values() if not law.finding]
    yield from (f"## {whose}'s strategies", "", "yes: kept, **no**: broken, -: does not apply.", "")
    yield f"| strategy | {' | '.join(_SHORT[law] for law in laws)} |"
    yield f"|---|{'---|' * len(laws)}"
    for name, report in found.items():
        yield f"| {name} | {' | '.join(_MARKS[report[law].outcome] for law in laws)} |"
    yield from ("", *_takes(found), "", f"### What breaks, and why ({whose})", "")
    broken = {name: report for name, report in found.items() if report.broken}
    for name, report in broken.items():
        yield from (f"**{name}.** {WHY.get(name, '')}".rstrip(), "")
        yield from (f"* {_line(verdict)}" for verdict in report.broken)
        yield ""
    if not broken:
        yield from ("Nothing does.", "")


def _takes(found: Mapping[str, Report]) -> Iterator[str]:
    names = [law.name for law in LAWS.values() if law.finding]
    yield f"| strategy | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for name, report in found.items():
        yield f"| {name} | {' | '.join(_answer(report[law]) for law in names)} |"


def _answer(verdict: Verdict) -> str:
    return verdict.seen.partition(":")[0] if verdict.outcome == "told" else "-"


def _line(verdict: Verdict) -> str:
    return f"*{verdict.law}*, given {verdict.given}: expected {verdict.expected}."


def main(arguments: list[str]) -> None:
    """Write the page to the named file, or to stdout."""
    text = page()
    if arguments:
        write_atomic(Path(arguments[0]), lambda file: file.write(text.encode()))
    else:
        print(text, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
