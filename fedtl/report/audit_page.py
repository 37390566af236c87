"""An audit as one page and as a few lines: self-contained, readable offline, without scripts."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fedtl.audit.result import AuditResult
from fedtl.home import write_atomic
from fedtl.report.plot_audit import bounds_of, plot_bounds, plot_membership
from fedtl.report.words import at_least, clean, count, percent, privacy


def write_audit(result: AuditResult, folder: Path) -> Path:
    """Write ``audit.json`` and ``audit.html``; return the page's path.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """
    page = folder / "audit.html"
    write_atomic(folder / "audit.json", lambda file: file.write(result.to_json().encode()))
    text = render_audit(result).encode("utf-8", errors="replace")
    write_atomic(page, lambda file: file.write(text))
    return page


def render_audit(result: AuditResult) -> str:
    """Return the audit as HTML text; names and plans are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = clean
    source = resources.files("fedtl.report").joinpath("audit.html").read_text("utf-8")
    plots = [plot_bounds(result), plot_membership(result)]
    return environment.from_string(source).render(
        audit=result,
        verdict=verdict(result),
        facts=facts(result),
        plots=[plot for plot in plots if plot is not None],
    )


def verdict(result: AuditResult) -> str:
    """Say in one sentence whether the promise held."""
    highest = at_least(result.certified.highest)
    if result.epsilon is None:
        return f"No privacy is promised, and none is there: epsilon is at least {highest}."
    claim = privacy(result.epsilon)
    if bad := [part for part in result.sums if part.broken]:
        return (
            f"THE PROMISE IS BROKEN: epsilon of the {bad[0].mechanism} is at least "
            f"{at_least(bad[0].certified.highest)}, but {privacy(bad[0].epsilon)} is claimed."
        )
    if result.broken:
        return f"THE PROMISE IS BROKEN: epsilon is at least {highest}, but {claim} is claimed."
    return f"The promise held: no attack proved more than epsilon {highest} of the claimed {claim}."


def facts(result: AuditResult) -> list[tuple[str, str]]:
    """Return what was found, as label and value."""
    claim = "none" if result.epsilon is None else privacy(result.epsilon)
    rows = [
        ("Claimed epsilon", f"{claim} at delta {result.delta:g}"),
        *((f"At least, for {name}", at_least(value)) for name, value in bounds_of(result)),
        *(
            (
                f"The {part.mechanism} of features",
                f"{at_least(part.certified.highest)} of claimed {privacy(part.epsilon)}",
            )
            for part in result.sums
        ),
        ("Canaries", f"{count(result.canaries)} among the records of {clean(result.site)}"),
    ]
    if found := result.membership:
        rows += [
            (
                "Membership, area under the curve",
                f"{found.auc:.3f} (offline {found.auc_offline:.3f})",
            ),
            ("Members found at 1 % false alarms", percent(found.tpr_at_1)),
            ("Members found at 0.1 % false alarms", percent(found.tpr_at_01)),
            ("Shadow heads", f"{count(found.shadows)} on {count(found.examples)} examples"),
        ]
    else:
        rows.append(("Membership and inversion", "not applicable: statistics, no heads, are sent"))
    if inverted := result.inversion:
        rows += [
            ("Single updates inverted, raw", _inverted(inverted.raw_found, inverted.raw_error)),
            (
                "Single updates inverted, as released",
                _inverted(inverted.released_found, inverted.released_error),
            ),
        ]
    return rows


def _inverted(found: float, error: float | None) -> str:
    return f"{percent(found)}, median error " + ("unlimited" if error is None else f"{error:.2g}")
