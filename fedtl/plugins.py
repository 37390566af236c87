"""Classes by name: ``package.module:Class``, ``path/to/file.py:Class``, or as packages say."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fedtl.errors import ConfigError, FedtlError, nearest

OWN = "Your own: path/to/file.py:Class."


def target_of(
    name: str,
    known: Mapping[str, str],
    group: str,
    *,
    what: str,
    error: type[FedtlError],
    code: str = "",
) -> str:
    """Return the ``module:Class`` of a name: one of fedtl's own, or of an installed package's.

    Parameters
    ----------
    known : mapping of str to str
        fedtl's own, name to ``module:Class``.
    group : str
        Of the entry points by which packages register theirs.
    what, error
        As in :func:`class_of`.
    code : str
        Of the errors.

    Raises
    ------
    FedtlError
        Nobody has that name, or more than one: neither may quietly stand for the other.

    Examples
    --------
    >>> target_of("a", {"a": "collections:OrderedDict"}, "no.group", what="X", error=ConfigError)
    'collections:OrderedDict'
    """
    own = {known[name]} if name in known else set()
    found = sorted(own | registered(group).get(name, set()))
    if len(found) == 1:
        return found[0]
    if found:
        raise error(
            f"{what} '{name}' is the name of {' and of '.join(found)}, because of what packages "
            f"register as {group}.",
            next_step="Write the one that you mean in its place, or uninstall the other package.",
            code=code,
        )
    names = {*known, *registered(group)}
    raise error(
        f"{what} '{name}' is unknown.", next_step=f"{nearest(name, names)} {OWN}", code=code
    )


@lru_cache(maxsize=16)
def registered(group: str) -> Mapping[str, set[str]]:
    """Return what installed packages register: names of entry points to ``module:Class``."""
    found: dict[str, set[str]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, set()).add(f"{point.module}:{point.attr}")
    return found


def class_of(
    target: str, base: type, *, what: str, error: type[FedtlError] = ConfigError
) -> type[Any]:
    """Return the class that a name stands for.

    Parameters
    ----------
    target : str
        ``package.module:Class`` or ``path/to/file.py:Class``.
    base : type
        What the class must derive from.
    what : str
        What it is called in an error, capitalised.
    error : type of FedtlError
        What is raised.

    Raises
    ------
    FedtlError
        The file does not exist or does not import (with the line), or has no such class.

    Examples
    --------
    >>> class_of("collections:OrderedDict", dict, what="Mapping").__name__
    'OrderedDict'
    """
    place, _, attribute = target.rpartition(":")
    module = module_of(place, target, what=what, error=error)
    found = getattr(module, attribute, None)
    if inspect.isclass(found) and issubclass(found, base):
        return found
    there = classes_in(module, base)
    raise error(
        f"'{place}' has no {base.__name__} class '{attribute}'.",
        next_step=nearest(attribute, there) if there else f"Derive it from {base.__name__}.",
    )


def classes_in(module: ModuleType, base: type) -> list[str]:
    """Return the names of a module's whole classes of a kind, its own before those it imports."""
    there = {
        name: value.__module__ == module.__name__
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    }
    return [name for name, own in there.items() if own] or [*there]


def module_of(place: str, name: str, *, what: str, error: type[FedtlError]) -> ModuleType:
    """Import a module by its name, or a file that ends in ``.py``.

    Parameters
    ----------
    name : str
        What the user called it.
    what, error
        As in :func:`class_of`.

    Raises
    ------
    FedtlError
        It is not there, or fails while it is imported (with the line of a file).
    """
    if place.endswith(".py"):
        return _module_of_file(Path(place), what, error)
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as problem:  # a module may raise anything while it is imported
        absent = isinstance(problem, ModuleNotFoundError) and f"{place}.".startswith(
            f"{problem.name}."
        )
        of = "" if name.startswith(f"{place}:") else f" from '{place}'"
        raise error(
            f"{what} '{name}' cannot be imported{of}: {type(problem).__name__}: {problem}.",
            next_step="Install the package that carries it, or name a file as "
            "path/to/file.py:Class."
            if absent or not place
            else "Mend the module, or reinstall the package that carries it.",
        ) from problem


def _module_of_file(path: Path, what: str, error: type[FedtlError]) -> ModuleType:
    """Import a file under a name of its own, once for as long as it does not change."""
    if not path.is_file():
        raise error(
            f"There is no {what.lower()} file '{path}'.",
            next_step="Check the path before the colon.",
        )
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    name = f"fedtl_file_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    file = Path(os.path.abspath(path))  # as tracebacks call it
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise error(f"'{path}' is not a Python file.", next_step="Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        line = getattr(problem, "lineno", None) or line_in(problem, file)
        raise error(
            f"{what} file '{path}' fails at line {line}: {type(problem).__name__}: {problem}.",
            next_step=_cure(problem, file.parent),
        ) from problem
    return module


def _cure(problem: BaseException, folder: Path) -> str:
    if not isinstance(problem, ImportError):
        return "Mend the file."
    top = (problem.name or "").partition(".")[0]
    beside = top and any((folder / part).exists() for part in (f"{top}.py", top))
    if beside or "relative import" in str(problem):
        return (
            f"A file is loaded by itself, without what lies beside it: set PYTHONPATH={folder} and "
            "import without leading dots, or put all of it into one file."
        )
    if isinstance(problem, ModuleNotFoundError):
        return f"Install '{problem.name}' where fedtl is installed, or mend the import."
    return "Mend the file."


def line_in(problem: BaseException, path: Path) -> int | str:
    """Return the last line of a file that an exception came through, or ``"?"``."""
    line: int | str = "?"
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
