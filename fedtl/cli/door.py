"""The door: all commands under one name, and what a user sees when something goes wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from fedtl import __version__
from fedtl.cli.audit import EXAMPLES as AUDIT_EXAMPLES
from fedtl.cli.audit import audit
from fedtl.cli.backbones import backbones
from fedtl.cli.check_strategy import EXAMPLES as CHECK_EXAMPLES
from fedtl.cli.check_strategy import check_strategy
from fedtl.cli.compare import EXAMPLES as COMPARE_EXAMPLES
from fedtl.cli.compare import compare
from fedtl.cli.doctor import EXAMPLES as DOCTOR_EXAMPLES
from fedtl.cli.doctor import doctor
from fedtl.cli.features import app as features
from fedtl.cli.ledger import app as ledger
from fedtl.cli.new import app as new
from fedtl.cli.predict import predict
from fedtl.cli.recipe import app as recipe
from fedtl.cli.report import report
from fedtl.cli.run import EXAMPLES as RUN_EXAMPLES
from fedtl.cli.run import run
from fedtl.cli.screen import clean_line, err
from fedtl.cli.server import app as server
from fedtl.cli.simulate import EXAMPLES, simulate
from fedtl.cli.site import app as site
from fedtl.errors import FedtlError
from fedtl.home import home, write_atomic

app = typer.Typer(
    name="fedtl",
    help="Federated transfer learning: frozen backbones, features made once, private heads.",
    epilog="First steps:\n\nfedtl simulate\n\nfedtl report runs/digits-... --open\n\n"
    "fedtl predict runs/digits-... image.png\n\nfedtl doctor",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EXAMPLES)(simulate)
app.command(epilog=COMPARE_EXAMPLES)(compare)
app.command(epilog=RUN_EXAMPLES)(run)
app.command()(report)
app.command()(predict)
app.command(epilog=AUDIT_EXAMPLES)(audit)
app.add_typer(recipe)
app.add_typer(features)
app.add_typer(ledger)
app.add_typer(site)
app.add_typer(server)
app.command(epilog=CHECK_EXAMPLES)(check_strategy)
app.add_typer(new)
app.command()(backbones)
app.command(epilog=DOCTOR_EXAMPLES)(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fedtl {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 is success, 1 an unexpected failure or a finding, 2 a mistake the user can mend, 130 an
    interrupt. ``FEDTL_DEBUG=1`` lets tracebacks through.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(arguments: list[str]) -> int:
    try:
        app(args=arguments, prog_name="fedtl")
    except SystemExit as end:
        if end.code == 130:  # before there was anything to keep, or to say how to go on
            err().print("Stopped.", style="yellow")
        return end.code if isinstance(end.code, int) else 0
    except FedtlError as error:
        if _debugging():
            raise
        err().print(f"Error: {clean_line(str(error))}", style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except Exception as error:
        if _debugging():
            raise
        return _apologise(error)
    return 0


def _debugging() -> bool:
    return os.environ.get("FEDTL_DEBUG", "") not in ("", "0")


def _apologise(error: Exception) -> int:
    """Say that this is our fault, and keep the traceback for whoever mends it."""
    path = home() / "logs" / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    trace = "".join(traceback.format_exception(error))
    try:
        write_atomic(path, lambda file: file.write(trace.encode("utf-8", "replace")))
        kept = f"The traceback is in '{path}'"
    except FedtlError as unkept:
        kept = f"The traceback could not be kept ({unkept.problem})"
    line = clean_line(f"{type(error).__name__}: {error}")
    text = f"Sorry, something failed that should not: {line}\n{kept}; FEDTL_DEBUG=1 shows it here."
    err().print(text, style="red", markup=False, soft_wrap=True)
    return 1
