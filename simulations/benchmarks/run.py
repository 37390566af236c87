"""Measure fedtl side by side with eager PyTorch, Flower on Ray and pfl, and hold it to its aims.

    python simulations/benchmarks/run.py [--quick] [--only heads] [--out DIR]

Every contender runs in a process of its own, in turn with the others and several times, so that
what else happens on the machine meets all of them. Prints a table and writes ``benchmarks.json``,
``benchmarks.md`` and a plot. The peers' environment is made on the first run, which takes a minute
or two and some 2 GB of disk. A full run takes about three quarters of an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from comparisons import COMPARISONS, QUICK, Sizes, fashion_is_there
from measure import HERE, Bench, Line
from rich.console import Console

from fedtl.errors import FedtlError

PEERLESS = {"memory", "cohort", "secure", "study", "wire"}


def run(names: Sequence[str], *, quick: bool, repetitions: int, out: Path) -> list[Line]:
    """Run the comparisons, print their lines and write the files.

    Parameters
    ----------
    names : sequence of str
        Of :data:`comparisons.COMPARISONS`.
    quick : bool
        Small sizes, for which the aims are not meant.
    repetitions : int
        How often each contender runs.
    out : Path
        Folder to write into.

    Raises
    ------
    FedtlError
        A contender failed; what the others gave is shown and written all the same.
    """
    from peers import peer_python
    from show import to_files, to_screen

    console = Console()
    peers = Path(sys.executable) if set(names) <= PEERLESS else peer_python()
    lines: list[Line] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), repetitions, peers, say=Console(stderr=True).print)
        for name in names:
            try:
                for line in COMPARISONS[name](bench, QUICK if quick else Sizes()):
                    lines.append(line)
            except FedtlError as error:  # hours of other figures are kept
                failed.append(f"{name}: {error}")
    if lines:
        to_screen(lines, console)
        to_files(lines, bench.runs, out=out, quick=quick)
        console.print(f"Written: {out}/benchmarks.json, .md, .svg and .png", soft_wrap=True)
    if failed:
        raise FedtlError("\n".join(failed), next_step="The lines above are whole.")
    return lines


def chosen(only: Sequence[str]) -> list[str]:
    """Return the comparisons to run; without a choice, those whose data is there."""
    if only:
        return list(dict.fromkeys(only))
    if fashion_is_there():
        return list(COMPARISONS)
    print(
        "The comparison 'images' is left out: Fashion-MNIST is not installed "
        "(apt-get install dataset-fashion-mnist).",
        file=sys.stderr,
    )
    return [name for name in COMPARISONS if name != "images"]


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, once each: does everything work?")
    add("--only", action="append", choices=tuple(COMPARISONS), default=[], help="repeatable")
    add("--repetitions", type=int, default=0, help="default: 3, or 1 with --quick")
    add("--out", type=Path, default=HERE / "results", help="default: results/ beside this file")
    arguments = parser.parse_args()
    if arguments.repetitions < 0:
        parser.error("--repetitions must be at least 1.")
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    try:
        names = chosen(arguments.only)
        run(names, quick=arguments.quick, repetitions=repetitions, out=arguments.out)
    except FedtlError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
