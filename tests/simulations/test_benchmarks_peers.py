"""The peers' scripts explain themselves at once, and refuse unusable input before the long wait."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "simulations" / "benchmarks"
SCRIPTS = sorted(
    path.name
    for path in BENCHMARKS.glob("peer*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
HEAVY = re.compile(r"\|\s+(torch|flwr|ray|pfl|timm|torchvision)$", re.MULTILINE)


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_all_scripts_are_found() -> None:
    assert {
        "peers.py",
        "peer_flower_heads.py",
        "peer_pfl_heads.py",
        "peer_flower_images.py",
        "peer_eager_extract.py",
    } <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_without_heavy_imports(script: str) -> None:
    done = python("-X", "importtime", BENCHMARKS / script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert HEAVY.findall(done.stderr) == []


@pytest.mark.parametrize("script", ["peer_flower_heads.py", "peer_pfl_heads.py"])
def test_features_of_a_wrong_shape_are_refused_before_anything_starts(
    script: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 40, 8), np.float32), y=np.zeros((2, 40), np.int64))
    done = python(BENCHMARKS / script, tmp_path / "x.npz")
    assert done.returncode == 2
    assert "at least 60 rows" in done.stderr


def test_a_missing_image_folder_names_the_package(tmp_path: Path) -> None:
    done = python(BENCHMARKS / "peer_flower_images.py", "--folder", tmp_path)
    assert done.returncode == 2
    assert "dataset-fashion-mnist" in done.stderr


def test_a_peer_that_cannot_be_installed_is_named_with_pips_reason(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import peers; "
        "peers.peer_python(folder=pathlib.Path(sys.argv[2]), requirements=[sys.argv[3]])"
    )
    missing = f"missing-wheel @ {(tmp_path / 'missing_wheel-1-py3-none-any.whl').as_uri()}"
    done = python("-c", code, BENCHMARKS, tmp_path / "environment", missing)
    assert done.returncode == 1
    assert "FedtlError: The peers (missing-wheel" in done.stderr
    assert "ERROR: Could not install packages" in done.stderr


def test_an_environment_made_once_is_only_looked_up(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import peers; "
        "folder = pathlib.Path(sys.argv[2]); "
        "first = peers.peer_python(folder=folder, requirements=['pip']); "
        "(folder / 'kept').touch(); "
        "print(peers.peer_python(folder=folder, requirements=['pip']) == first, "
        "(folder / 'kept').exists())"
    )
    done = python("-c", code, BENCHMARKS, tmp_path / "environment")
    assert done.stdout.split() == ["True", "True"], done.stderr
