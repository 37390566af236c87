"""``fedtl features``: make a data set's features ahead of time, or tidy the cache."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fedtl.cli.progress import progress
from fedtl.cli.screen import clean_line, err, leave_now, out, print_json, stoppable, warnings_shown
from fedtl.errors import RecipeError

if TYPE_CHECKING:
    from fedtl.features import Features


class _SourceOrCommand(TyperGroup):
    """Takes a first argument that is no command as the source of ``extract``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["extract", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="features",
    cls=_SourceOrCommand,
    help="Make and cache features: fedtl features SOURCE. Or look at the cache, or empty it.",
    epilog="Examples:\n\nfedtl features photos/ --image-size 128\n\nfedtl features usage\n\n"
    "fedtl features prune --keep-gb 5\n\nA folder called prune is given as ./prune.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command()
def extract(
    source: Annotated[str, typer.Argument(help="digits, fashion-mnist, a folder, .csv or .npz.")],
    backbone: Annotated[str | None, typer.Option(help="A timm model.")] = None,
    weights: Annotated[str | None, typer.Option(help="A weight file or folder.")] = None,
    taps: Annotated[str, typer.Option(help="auto, final, or stages with commas.")] = "auto",
    image_size: Annotated[
        int | None, typer.Option(help="Input side in pixels; default the backbone's own.")
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, onnx, torch or reference.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    tolerate_unreadable: Annotated[int, typer.Option(min=0, help="Unreadable files accepted.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run each picture of a data set through the backbone once, and keep what comes out.

    SOURCE is digits, fashion-mnist, a folder, a .csv or a .npz.
    """
    from fedtl import features
    from fedtl.backbone import resolve
    from fedtl.data import open_data
    from fedtl.recipe import Backbone

    console = err()
    try:
        with stoppable(), warnings_shown(console), progress(console, quiet=quiet) as reached:
            manifest = open_data(
                source,
                tolerate_unreadable=tolerate_unreadable,
                progress=partial(reached, "reading"),
            )
            card = resolve(backbone or Backbone().name, weights, taps=taps, image_size=image_size)
            made = features.extract(
                manifest,
                card,
                engine=engine,
                precision=precision,
                progress=partial(reached, "features"),
            )
    except KeyboardInterrupt:
        console.print("Stopped. What was made is kept; the same command goes on from there.")
        leave_now()
    _print_made(made, as_json=as_json)


def _print_made(made: Features, *, as_json: bool) -> None:
    facts = {
        "pictures": len(made),
        "computed": made.computed,
        "cached": made.cached,
        "seconds": round(made.seconds, 3),
        "engine": made.engine,
        "width": made.width,
        "key": made.key,
        "notes": dict(made.notes.most_common()),
    }
    if as_json:
        print_json(facts)
        return
    with_ = f" with {made.engine}" if made.engine else ""
    lines = [
        f"{len(made):,} pictures: {made.computed:,} computed{with_}, {made.cached:,} found in the "
        f"cache, {made.seconds:.1f} s.",
        f"{made.width:,} numbers each, under the key {made.key}.",
        *(f"  {n:,}: {clean_line(note)}" for note, n in made.notes.most_common(10)),
    ]
    out().print("\n".join(lines), markup=False, soft_wrap=True)


@app.command()
def prune(
    keep_gb: Annotated[
        float | None, typer.Option(min=0, help="Keep so many GB, the last used.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Empty the cache (the default).")
    ] = False,
) -> None:
    """Remove cached features, the least recently used first; they can always be made again."""
    from fedtl.features import prune as prune_cache
    from fedtl.report.words import size

    if everything and keep_gb:
        raise RecipeError(
            f"--all and --keep-gb {keep_gb:g} contradict each other.", next_step="Give one of them."
        )
    freed = prune_cache(int((keep_gb or 0) * 1e9))
    print(f"{size(freed)} freed.")


@app.command()
def usage(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what the cache holds, one line per backbone, the last used first."""
    from dataclasses import asdict
    from datetime import datetime

    from fedtl.features import usage as entries
    from fedtl.features.cache import limit, root
    from fedtl.report.words import size

    found = entries()
    total = sum(entry.n_bytes for entry in found)
    if as_json:
        shown = [asdict(entry) for entry in found]
        print_json({"folder": str(root()), "n_bytes": total, "limit": limit(), "entries": shown})
        return
    for entry in found:
        used = datetime.fromtimestamp(entry.last_used)
        print(f"{size(entry.n_bytes):>10}  {used:%Y-%m-%d %H:%M}  {entry.key}")
    print(f"{size(total):>10}  of at most {size(limit())} in '{root()}'")
