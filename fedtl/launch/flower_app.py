"""The Flower app of a federated run: two files of ten lines, and what Flower wants to know of them.

Flower sends it to every site as a bundle, so it holds no library: a site's is the one it installed.
"""

from __future__ import annotations

from pathlib import Path

import fedtl
from fedtl.errors import ConfigError
from fedtl.home import write_atomic

_PACKAGED = Path(fedtl.__file__).parent / "apps" / "flower"
_REPOSITORY = Path(fedtl.__file__).parents[1]
_APPS = ("server/app.py", "client/app.py")
_ABOUT = f"""\
[project]
name = "fedtl-run"
version = "{fedtl.__version__}"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41.0,<1.42"]

[tool.flwr.app]
publisher = "fedtl"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["server/*.py", "client/*.py", "LICENSE"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
run = ""
"""


def write_app(folder: Path) -> Path:
    """Write the app into a folder, and return it.

    Raises
    ------
    ConfigError
        With code ``app.missing``: this installation of fedtl lacks the two files.
    CacheError
        The folder cannot be written.
    """
    source = next((s for s in (_PACKAGED, _REPOSITORY) if (s / _APPS[0]).is_file()), None)
    if source is None:
        raise ConfigError(
            "This installation of fedtl has no server/app.py.",
            next_step="Install fedtl again.",
            code="app.missing",
        )
    texts = {name: (source / name).read_bytes() for name in _APPS}
    texts |= {"pyproject.toml": _ABOUT.encode(), "LICENSE": b"See fedtl.\n"}
    for name, text in texts.items():
        _write(folder / name, text)
    return folder


def _write(path: Path, text: bytes) -> None:
    write_atomic(path, lambda file: file.write(text))
