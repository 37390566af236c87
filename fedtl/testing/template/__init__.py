"""The files that ``fedtl new strategy`` writes: a strategy of one page, and its test."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path
from string import Template

from fedtl.errors import StrategyError
from fedtl.home import write_atomic


def write_strategy(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a strategy file and its test, ready to be run.

    Parameters
    ----------
    name : str
        Of the file, such as ``my_strategy``; the class is ``MyStrategy``.
    folder : Path
        Where; made if it is not there.

    Returns
    -------
    tuple of Path
        The strategy and the test.

    Raises
    ------
    StrategyError
        A name that is none for a Python module, or a file that is there already.
    """
    _check_name(name)
    texts = {
        folder / f"{name}.py": "strategy.txt",
        folder / f"test_{name}.py": "test.txt",
    }
    for path in texts:
        if path.exists() or path.is_symlink():
            raise StrategyError(
                f"'{path}' is there already, and nothing was written.",
                next_step="Choose another name or --folder, or delete it.",
                code="strategy.exists",
            )
    values = {"name": name, "title": class_name(name)}
    for path, source in texts.items():
        text = Template((files(__name__) / source).read_text("utf-8")).substitute(values)
        write_atomic(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    strategy, test = texts
    return strategy, test


def class_name(name: str) -> str:
    """Return the name of the class in a file.

    Examples
    --------
    >>> class_name("my_strategy"), class_name("fedAvg2")
    ('MyStrategy', 'FedAvg2')
    """
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _check_name(name: str) -> None:
    wrong = ""
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        wrong = "is a word of Python itself"
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or not name.isidentifier():
        wrong = "is no name of a Python module"
    elif name in sys.stdlib_module_names or name in ("fedtl", "flwr", "numpy", "torch", "pytest"):
        wrong = "would hide the module of that name"
    if wrong:
        raise StrategyError(
            f"NAME '{name}' {wrong}.",
            next_step="Use letters, digits and _, beginning with a letter: my_strategy.",
            code="strategy.name",
        )
