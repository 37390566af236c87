"""``fedtl backbones``: which backbones are at hand, and which timm knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedtl.cli.screen import print_json

MOST_NAMES = 50


def backbones(
    pattern: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Part of a timm name, * allowed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the backbones whose weights are at hand, and the timm models that match a name."""
    found: dict[str, Any] = {"packages": packages(), "store": stored()}
    if pattern is not None:
        found["timm"] = matching(pattern)
    if as_json:
        print_json(found)
        return
    _table("Carried by installable packages", found["packages"])
    _table("In the store", found["store"])
    if pattern is not None:
        _print_names(pattern, found["timm"])


def packages() -> list[dict[str, Any]]:
    """Return the packages that carry weights, and whether each is installed."""
    from fedtl.backbone.weights import package_file, weight_packages

    return [
        {
            "name": name,
            "package": package.package,
            "installed": package_file(package) is not None,
            "licence": package.licence,
            "sha256": package.sha256,
        }
        for name, package in sorted(weight_packages().items())
    ]


def stored() -> list[dict[str, Any]]:
    """Return the weights in the store, with the width of the taps they were first used with."""
    from fedtl.backbone import store

    return [
        {
            "name": card.architecture,
            "width": card.width,
            "image_size": card.native_size,
            "n_bytes": (store.folder(card.sha256) / "weights.safetensors").stat().st_size,
            "licence": card.licence,
            "source": card.source,
            "sha256": card.sha256,
        }
        for card in store.cards()
        if store.has(card.sha256)
    ]


def matching(pattern: str) -> list[dict[str, Any]]:
    """Return timm's models whose name contains or matches the pattern."""
    from fedtl.backbone.architectures import known

    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    trained = known(wanted, pretrained=True)
    return [{"name": name, "pretrained": name in trained} for name in known(wanted)]


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows in columns; a terminal may wrap them, but no name is cut."""
    print(f"{title}:" if rows else f"{title}: none")
    if not rows:
        return
    headings = [key.replace("n_bytes", "size") for key in rows[0]]
    cells = [headings, *([_cell(key, value) for key, value in row.items()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(padded)}".rstrip())


def _cell(key: str, value: Any) -> str:
    from fedtl.report.words import clean, size

    if key == "n_bytes":
        return size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value))[: 12 if key == "sha256" else 60]


def _print_names(pattern: str, rows: list[dict[str, Any]]) -> None:
    from fedtl.report.words import clean

    lines = [f"timm models that match {clean(pattern)!r}: {len(rows)}"]
    lines += [
        f"  {row['name']}" + ("" if row["pretrained"] else "  (no pretrained weights)")
        for row in rows[:MOST_NAMES]
    ]
    if len(rows) > MOST_NAMES:
        lines.append(f"  and {len(rows) - MOST_NAMES} more; --json lists all")
    print("\n".join(lines))
