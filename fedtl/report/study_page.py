"""A study as a folder for people: page, figures and tables, beside the cells they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from fedtl.home import write_atomic
from fedtl.report.canvas import Plot
from fedtl.report.study_files import columns, headings, write_csv, write_parquet, write_tex
from fedtl.report.study_plots import draw_study
from fedtl.report.study_result import StudyResult
from fedtl.report.study_stats import Row, table_of
from fedtl.report.study_table import failures_of, notes_of, style_of
from fedtl.report.words import clean, plural

PLOTS = "plots"


def write_study(result: StudyResult, folder: Path) -> Path:
    """Write everything that is shown of a study; return the page's path.

    ``results.parquet``, ``table.csv``, ``table.tex``, ``report.html`` and, under ``plots/``, each
    figure as SVG and PNG. The page loads nothing from anywhere and has no scripts.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """
    rows = table_of(result)
    write_parquet(result, folder / "results.parquet")
    write_csv(result, rows, folder / "table.csv")
    write_tex(result, rows, folder / "table.tex")
    plots = _write_plots(result, folder / PLOTS)
    page = folder / "report.html"
    text = render_study(result, rows, plots).encode("utf-8", errors="replace")
    write_atomic(page, lambda file: file.write(text))
    return page


def _write_plots(result: StudyResult, folder: Path) -> list[Plot]:
    """Write each figure as files; return them for the page. Figures of earlier times go."""
    plots, written = [], set()
    for drawing in draw_study(result):
        plot, png = drawing.plot(), drawing.png()
        plots.append(plot)
        for name, content in ((f"{plot.key}.svg", plot.svg.encode()), (f"{plot.key}.png", png)):
            written.add(name)
            write_atomic(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    for path in folder.glob("*.*") if folder.is_dir() else ():
        if path.suffix in (".svg", ".png") and path.name not in written:
            path.unlink(missing_ok=True)
    return plots


def render_study(result: StudyResult, rows: list[Row], plots: Sequence[Plot]) -> str:
    """Return the page as HTML text; labels are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(clean=clean, plural=plural)
    source = resources.files("fedtl.report").joinpath("study.html").read_text("utf-8")
    shown = columns(rows)
    return environment.from_string(source).render(
        study=result,
        headings=[*headings(result), *(name.replace("\n", " ") for name, _ in shown)],
        n_labels=len(headings(result)),
        rows=[
            (style_of(row), [*row.group, row.label, *(text(row) for _, text in shown)])
            for row in rows
        ],
        failures=failures_of(result),
        notes=notes_of(result, rows),
        plots=[(plot, _is_wide(plot)) for plot in plots],
    )


def _is_wide(plot: Plot) -> bool:
    """Say whether a figure wants the whole width of the page."""
    view = plot.svg.partition('viewBox="')[2].partition('"')[0].split()
    return len(view) == 4 and float(view[2]) > 450
