"""Numbers and names as people read them, safe to print and to put on a page."""

from __future__ import annotations

import math

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def percent(share: float | None) -> str:
    """Return a share as a percentage; "-" where there is none.

    Examples
    --------
    >>> percent(0.934), percent(None)
    ('93.4 %', '-')
    """
    return "-" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def count(number: int) -> str:
    """Return a whole number with separators.

    Examples
    --------
    >>> count(12345)
    '12,345'
    """
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> plural(1, "round"), plural(1200, "site")
    ('1 round', '1,200 sites')
    """
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def few(number: int | None, least: int) -> str:
    """Return a whole number of units, or that it is below the least that is shown.

    Examples
    --------
    >>> few(12, 5), few(3, 5), few(None, 5), few(3, 0)
    ('12', '<5', '<5', '3')
    """
    return f"<{least}" if number is None or number < least else count(number)


def told(number: int | None, least: int) -> str:
    """Return a number of units of a site, which a server is not told.

    Examples
    --------
    >>> told(12, 5), told(3, 5), told(None, 5)
    ('12', '<5', '-')
    """
    return "-" if number is None else few(number, least)


def size(n_bytes: float) -> str:
    """Return a number of bytes in decimal units.

    Examples
    --------
    >>> size(0), size(999), size(1536), size(12_400_000)
    ('0 B', '999 B', '1.5 kB', '12.4 MB')
    """
    power, name = unit(n_bytes)
    return f"{n_bytes:.0f} B" if name == "B" else f"{n_bytes / power:.1f} {name}"


def unit(n_bytes: float) -> tuple[float, str]:
    """Return the divisor and the name of the unit that suits a number of bytes."""
    step = 0
    while n_bytes >= 999.95 * 1000**step and step < len(_UNITS) - 1:
        step += 1
    return float(1000**step), _UNITS[step]


def duration(seconds: float) -> str:
    """Return a duration.

    Examples
    --------
    >>> duration(0.0123), duration(3.21), duration(75), duration(7380)
    ('12 ms', '3.2 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def privacy(epsilon: float | None) -> str:
    """Return an epsilon, never rounded down; "-" where nothing was promised.

    Examples
    --------
    >>> privacy(7.9312), privacy(None)
    ('7.94', '-')
    """
    if epsilon is None:
        return "-"
    if not math.isfinite(epsilon):
        return "unlimited"
    return f"{math.ceil(round(100 * epsilon, 6)) / 100:.2f}"


def at_least(epsilon: float) -> str:
    """Return a lower bound on epsilon, never rounded up.

    Examples
    --------
    >>> at_least(6.2789), at_least(0.0)
    ('6.27', '0.00')
    """
    return f"{math.floor(100 * epsilon) / 100:.2f}"


def clean(text: str) -> str:
    r"""Replace what a terminal or browser might obey: control, bidi and broken characters.

    Examples
    --------
    >>> clean("a\x1b[2J b")
    'a�[2J b'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def short(name: str, length: int = 20) -> str:
    """Return a clean name of at most so many characters; the middle goes first.

    Examples
    --------
    >>> short("site-01"), short("university-hospital-north", 12)
    ('site-01', 'univer..orth')
    """
    name = clean(name)
    if len(name) <= length:
        return name
    tail = (length - 2) // 3 + 1
    return f"{name[: length - 2 - tail]}..{name[-tail:]}"
