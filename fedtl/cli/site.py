"""``fedtl site``: set up this machine as a site of a federation, and see whether it is ready."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.agent import agent
from fedtl.cli.join import join
from fedtl.cli.progress import progress
from fedtl.cli.screen import (
    clean_line,
    err,
    leave_now,
    out,
    print_findings,
    print_json,
    stoppable,
    warnings_shown,
)
from fedtl.cli.site_services import down, ledger, log, status, up
from fedtl.errors import FedtlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedtl.report.site_page import Chapter

app = typer.Typer(
    name="site",
    help="For the institution that owns data: set up a site, check it, and take part.",
    epilog="Examples:\n\nfedtl site init site/ --name north --data images/\n\n"
    "fedtl site check site/\n\nfedtl site join site/ north.invite\n\nfedtl site up site/",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

app.command(epilog="Example:\n\nfedtl site agent site/ --mode 660")(agent)
app.command(epilog="Example:\n\nfedtl site join site/ north.invite")(join)
app.command(epilog="Example:\n\nfedtl site up site/")(up)
app.command(epilog="Example:\n\nfedtl site status site/ --json")(status)
app.command(epilog="Example:\n\nfedtl site log site/ supernode --follow")(log)
app.command(epilog="Example:\n\nfedtl site ledger site/")(ledger)
app.command(epilog="Example:\n\nfedtl site down site/")(down)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The site's state folder.")]


@app.command(epilog="Example:\n\nfedtl site init site/ --name north --data images/")
def init(
    folder: Folder = Path("site"),
    name: Annotated[
        str | None, typer.Option(help="Public name; default: asked for, or the folder's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A folder with one sub-folder per class, a .csv or .npz.")
    ] = None,
) -> None:
    """Write a site's state folder with a commented site.toml and policy.toml.

    Nothing is ever overwritten. Only this account can read the files. Without a terminal nothing is
    asked: what is not given is left to be filled in.
    """
    from fedtl.site.folder import check_name, check_new, make_site, name_for
    from fedtl.site.node_key import NODE_PUBLIC, node_fingerprint

    check_new(folder)
    name = name or _asked("Public name of this site", name_for(folder))
    check_name(name)
    source = _absolute(_asked("Folder, .csv or .npz with the images", "") if data is None else data)
    make_site(folder, name=name, source=source)
    lines = [
        f"Wrote '{folder / 'site.toml'}' and '{folder / 'policy.toml'}' for the site '{name}'.",
        f"Read them, then run: fedtl site check '{folder}'",
        f"To take part in a federation, mail '{folder / NODE_PUBLIC}' to its coordinator, and tell "
        f"the key's fingerprint by telephone: {node_fingerprint(folder / NODE_PUBLIC)}",
        f"What comes back is an invitation: fedtl site join '{folder}' {name}.invite",
    ]
    if not source:
        lines.insert(1, "Name the images of this site as data.source in site.toml.")
    out().print("\n".join(map(clean_line, lines)), markup=False, soft_wrap=True)
    if source and "/" in source and not Path(source).exists():
        err().print(clean_line(f"Note: '{source}' is not there yet."), markup=False, soft_wrap=True)


def _asked(question: str, default: str) -> str:
    """Ask a person; where there is none, take the default."""
    import sys

    if not sys.stdin.isatty():
        return default
    answer: str = typer.prompt(question, default=default, err=True)
    return answer.strip()


def _absolute(source: str) -> str:
    """Return a path that means the same from the state folder; a known data set stays a name."""
    from fedtl.data.named import SOURCES

    if not source or source in SOURCES:
        return source
    return str(Path(source).expanduser().absolute())


@app.command(epilog="Example:\n\nfedtl site check site/ --json")
def check(
    folder: Folder = Path("site"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the federation's server how it is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine data, images, machine, ledger and policy; the exit code is 1 if something is broken.

    Nothing of the data leaves this machine. What is found is printed, and written as check.html
    into FOLDER: both name files of this site and are for the site itself.
    """
    from fedtl.launch.site_check import PAGE, examine_site
    from fedtl.launch.site_check.guard import broken
    from fedtl.report.site_page import Chapter, number_of, write_site_page
    from fedtl.site.config import read_site

    console = err()
    try:
        with stoppable(), warnings_shown(console), progress(console, quiet=quiet) as reached:
            site = read_site(folder)
            chapters = examine_site(site, reached, connect=not offline)
            try:
                write_site_page(site.config.name, chapters, folder / PAGE)
            except FedtlError as error:  # what took long to find out is told all the same
                chapters.append(Chapter("Page", (broken("page", error),)))
    except KeyboardInterrupt:
        console.print("Stopped. Nothing was written.")
        leave_now()
    page, n_broken = folder / PAGE, number_of(chapters, "broken")
    if as_json:
        findings = [{"chapter": c.title, **asdict(f)} for c in chapters for f in c.findings]
        facts = {"site": site.config.name, "broken": n_broken, "page": str(page)}
        print_json({**facts, "findings": findings})
    else:
        _print(chapters, page)
    if n_broken:
        raise typer.Exit(1)


def _print(chapters: Sequence[Chapter], page: Path) -> None:
    from fedtl.report.site_page import verdict

    console = out()
    for chapter in chapters:
        console.print(chapter.title, style="bold", markup=False)
        print_findings(chapter.findings)
    written = all(chapter.title != "Page" for chapter in chapters)
    last = verdict(chapters) + (f" The page: {page}" if written else "")
    console.print(clean_line(last), style="bold", markup=False, soft_wrap=True)
