"""A study's results as files that other programs read: Parquet, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedtl.home import write_atomic
from fedtl.report.study_result import StudyResult, every_round
from fedtl.report.study_stats import Mean, Row
from fedtl.report.words import size

_NUMBERS = (
    *("round", "accuracy", "loss", "worst_site", "worst_accuracy"),
    *("bytes_down", "bytes_up", "epsilon", "seconds", "failures", "kept"),
)


def write_parquet(result: StudyResult, path: Path) -> None:
    """Write ``results.parquet``: one row per cell and round.

    Columns are the axes (their labels), ``seed``, and the fields of
    :class:`~fedtl.report.study_result.CellRound`; what was not measured is null.

    Raises
    ------
    CacheError
        The file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        **{axis: pa.string() for axis in result.axes},
        **dict.fromkeys(("seed", "round", "bytes_down", "bytes_up", "failures"), pa.int64()),
        "worst_site": pa.string(),
        "kept": pa.bool_(),
        **dict.fromkeys(("accuracy", "loss", "worst_accuracy", "epsilon", "seconds"), pa.float64()),
    }
    names = [*result.axes, "seed", *_NUMBERS]
    rows = [
        {**cell.labels, "seed": cell.seed, **{name: getattr(r, name) for name in _NUMBERS}}
        for cell, r in every_round(result)
    ]
    told = {"fedtl": result.version, "study": result.name, "baseline": result.baseline}
    schema = pa.schema([(name, kinds[name]) for name in names], metadata=told)
    table = pa.Table.from_pylist(rows, schema=schema)
    write_atomic(path, lambda file: parquet.write_table(table, file))


def headings(result: StudyResult) -> list[str]:
    """Return the names of the columns that say what a row is."""
    return [*result.varied, result.compared]


def write_csv(result: StudyResult, rows: list[Row], path: Path) -> None:
    """Write ``table.csv``: one line per row of the table, unrounded.

    Raises
    ------
    CacheError
        The file cannot be written.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measures = ("accuracy", "worst", "bytes", "epsilon", "seconds")
    columns = [f"{name}{part}" for name in measures for part in ("_mean", "_ci95")]
    tests = ["difference_mean", "difference_ci95", "pairs", "p_t", "p_wilcoxon", "p_holm"]
    writer.writerow([*headings(result), "seeds", *columns, *tests])
    for row in rows:
        writer.writerow(
            [*row.group, row.label, row.accuracy.n if row.accuracy else 0, *_cells(row)]
        )
    write_atomic(path, lambda file: file.write(out.getvalue().encode()))


def _cells(row: Row) -> list[Any]:
    found: list[Any] = []
    for mean in (row.accuracy, row.worst, row.n_bytes, row.epsilon, row.seconds):
        found += _pair(mean)
    versus = row.versus
    if versus is None:
        return found + [""] * 6
    tests = (versus.difference.n, versus.p_t, versus.p_wilcoxon, versus.p_holm)
    return [*found, *_pair(versus.difference), *("" if p is None else p for p in tests)]


def _pair(mean: Mean | None) -> list[Any]:
    return ["", ""] if mean is None else [mean.mean, "" if mean.half is None else mean.half]


Column = tuple[str, Callable[[Row], str]]


def columns(rows: list[Row]) -> list[Column]:
    """Return heading and text of each column that has anything to show, in plain words."""
    private = any(row.epsilon for row in rows)
    tested = any(row.versus for row in rows)
    tests: list[Column] = [
        ("vs.\nbaseline", lambda row: points(row.versus.difference) if row.versus else ""),
        ("p", lambda row: p_value(row.versus.p_t) if row.versus else ""),
        ("p\n(Holm)", lambda row: p_value(row.versus.p_holm) if row.versus else ""),
        ("p\n(ranks)", lambda row: p_value(row.versus.p_wilcoxon) if row.versus else ""),
    ]
    return [
        ("accuracy", lambda row: share(row.accuracy)),
        ("worst\nsite", lambda row: share(row.worst)),
        *(tests if tested else []),
        ("sent", lambda row: size(row.n_bytes.mean) if row.n_bytes else "-"),
        *([("epsilon", lambda row: _epsilon(row.epsilon))] if private else []),
        ("seconds", lambda row: f"{row.seconds.mean:.1f}" if row.seconds else "-"),
        ("seeds", lambda row: str(row.accuracy.n if row.accuracy else 0)),
    ]


def share(mean: Mean | None) -> str:
    """Return a mean share in percent with its interval.

    Examples
    --------
    >>> share(Mean(3, 0.934, 0.012)), share(Mean(1, 0.934, None)), share(None)
    ('93.4 ± 1.2', '93.4', '-')
    """
    if mean is None:
        return "-"
    return f"{100 * mean.mean:.1f}" + ("" if mean.half is None else f" ± {100 * mean.half:.1f}")


def points(mean: Mean) -> str:
    """Return a mean difference in percentage points, with its sign.

    Examples
    --------
    >>> points(Mean(3, -0.012, 0.004))
    '-1.2 ± 0.4'
    """
    half = "" if mean.half is None else f" ± {100 * mean.half:.1f}"
    return f"{100 * mean.mean:+.1f}{half}"


def p_value(p: float | None) -> str:
    """Return a p-value as papers write it.

    Examples
    --------
    >>> p_value(0.0301), p_value(0.00004), p_value(1.0), p_value(None)
    ('0.030', '<0.001', '1.000', '-')
    """
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _epsilon(mean: Mean | None) -> str:
    return "-" if mean is None else f"{mean.mean:.2f}"


def write_tex(result: StudyResult, rows: list[Row], path: Path) -> None:
    r"""Write ``table.tex``: a ``tabular`` for ``\input``, with the rules of the package booktabs.

    Raises
    ------
    CacheError
        The file cannot be written.
    """
    shown = columns(rows)
    first = headings(result)
    names = [*first, *(name.replace("\n", " ") for name, _ in shown)]
    lines = [
        rf"% {_tex(result.name)}: means over seeds, with 95 \% confidence intervals, in percent.",
        rf"\begin{{tabular}}{{{'l' * len(first)}{'r' * len(shown)}}}",
        r"\toprule",
        " & ".join(_tex(name) for name in names) + r" \\",
    ]
    before: tuple[str, ...] | None = None
    for row in rows:
        lines += [r"\midrule"] if row.group != before else []
        group = row.group if row.group != before else ("",) * len(row.group)
        cells = [*group, row.label, *(text(row) for _, text in shown)]
        lines.append(" & ".join(_tex(cell) for cell in cells) + r" \\")
        before = row.group
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    text = "\n".join(lines)
    write_atomic(path, lambda file: file.write(text.encode()))


_TEX = {
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


def _tex(text: str) -> str:
    """Escape what LaTeX would obey; a number's minus becomes one."""
    if text.startswith("-") and text[1:2].isdigit():
        return "$-$" + _tex(text[1:])
    return "".join(_TEX.get(c, c) for c in text)
