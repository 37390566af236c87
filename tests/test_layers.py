"""What keeps the code readable: small files, one door per heavy library, lazy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "fedtl").rglob("*.py"))
DOORS = {
    "timm": ("backbone/",),
    "onnxruntime": ("backbone/engine/",),
    "opacus": ("privacy/",),
    "dp_accounting": ("privacy/",),
    "ray": (),
}
PUBLIC_FLOWER = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def inside(path: Path) -> str:
    return path.relative_to(ROOT / "fedtl").as_posix()


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_a_file_is_one_room(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_heavy_libraries_have_one_door(path: Path) -> None:
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or inside(path).startswith(doors), f"{name} in {inside(path)}"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_flowers_private_names_have_one_door(path: Path) -> None:
    if inside(path) == "transport/_identity.py":
        return
    for name in imports(path):
        if name.split(".")[0] == "flwr":
            assert ".".join(name.split(".")[:2]) in PUBLIC_FLOWER, f"{name} in {inside(path)}"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_no_assert_stands_for_a_users_mistake(path: Path) -> None:
    assert not any(isinstance(n, ast.Assert) for n in ast.walk(ast.parse(path.read_text("utf-8"))))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fedtl.cli", ["torch", "flwr", "numpy", "pydantic", "timm", "matplotlib"]),
        ("fedtl.data", ["torch", "flwr", "timm", "sklearn"]),
        ("fedtl.features", ["torch", "flwr", "timm", "onnxruntime"]),
        ("fedtl.site.answer", ["timm", "opacus", "onnxruntime", "matplotlib"]),
        ("fedtl.launch.simulate", ["timm", "opacus", "onnxruntime", "matplotlib", "ray"]),
    ],
)
def test_importing_a_package_does_not_bring_heavy_libraries(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(*[m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
