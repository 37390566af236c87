"""Classes by name: ``package.module:Class`` or ``path/to/file.py:Class``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fedtl.errors import ConfigError, FedtlError, nearest


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
    there = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    ]
    raise error(
        f"'{place}' has no {base.__name__} class '{attribute}'.",
        next_step=nearest(attribute, there) if there else f"Derive it from {base.__name__}.",
    )


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
    except Exception as problem:  # a module may raise anything while it is imported
        raise error(
            f"{what} '{name}' cannot be imported: {problem}.",
            next_step="Install the package that carries it, or name a file as "
            "path/to/file.py:Class.",
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
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"'{path}' is not a Python file.", next_step="Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        del sys.modules[name]
        line = getattr(problem, "lineno", None) or line_in(problem, path)
        raise error(
            f"{what} file '{path}' fails at line {line}: {type(problem).__name__}: {problem}.",
            next_step=_cure(problem),
        ) from problem
    return module


def _cure(problem: Exception) -> str:
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
