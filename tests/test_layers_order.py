"""The layers of the design: a lower one never imports a higher one, and nobody in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "fedtl").rglob("*.py"))
}
LAYERS = {
    "types": 0, "recipe": 0, "rng": 0, "errors": 0, "home": 0, "garbage": 0, "plugins": 0,
    "backbone": 1, "data": 1, "privacy": 1,
    "privacy.opacus_fit": 2, "train": 2,
    "wire": 3, "features": 3, "audit": 3,
    "site": 4, "strategies": 4, "report": 4, "modules": 4,
    "rounds": 5, "transport": 5,
    "apps": 6,
    "agent": 7,
    "launch": 8,
    "testing": 9,
    "cli": 10, "__main__": 10,
}  # fmt: skip
FLOWER_FROM = 3


def layer(module: str) -> int | None:
    """Return the layer of ``fedtl.a.b``, by its longest known prefix; None for fedtl itself."""
    parts = module.split(".")[1:]
    for end in range(len(parts), 0, -1):
        if (known := LAYERS.get(".".join(parts[:end]))) is not None:
            return known
    return None


def imported(path: Path, *, lazy: bool = True) -> set[str]:
    """Return the modules that a file imports; without ``lazy`` only when it is imported itself."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = list(ast.walk(tree)) if lazy else tree.body
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (below & MODULES.keys()) or {node.module}
    return found


def test_every_module_has_a_layer() -> None:
    assert [m for m in MODULES if m != "fedtl" and layer(m) is None] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m != "fedtl"])
def test_a_lower_layer_never_imports_a_higher_one(module: str) -> None:
    own = layer(module)
    for name in imported(MODULES[module]):
        if name.startswith("fedtl."):
            assert layer(name) <= own, f"{module} (layer {own}) imports {name}"  # type: ignore[operator]


@pytest.mark.parametrize("module", [m for m in MODULES if (layer(m) or 0) < FLOWER_FROM])
def test_what_needs_no_flower_has_none(module: str) -> None:
    """Data, privacy and training are of use, and tested, without a federation."""
    assert not [n for n in imported(MODULES[module]) if n.split(".")[0] == "flwr"]


@pytest.mark.parametrize("package", ["features", "report"])
def test_nor_have_features_and_reports(package: str) -> None:
    own = [path for name, path in MODULES.items() if name.startswith(f"fedtl.{package}")]
    assert own
    assert not [n for path in own for n in imported(path) if n.split(".")[0] == "flwr"]


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        name: imported(path, lazy=False) & MODULES.keys() - {name} for name, path in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)  # CycleError if any


def test_a_training_message_on_a_warm_cache_needs_neither_timm_nor_opacus(tmp_path: Path) -> None:
    """Flower starts a process for each message, and imports would cost more than the training."""
    code = """
import sys
from pathlib import Path
from fedtl.launch.simulate import simulate
from fedtl.recipe import load_recipe

small = {"data.limit": 160, "backbone.image_size": 32, "partition.sites": 3, "train.rounds": 1}
simulate(load_recipe(None, small), Path(sys.argv[1]), html=False)
print(*[m for m in ("timm", "opacus", "onnxruntime", "onnx", "matplotlib") if m in sys.modules])
"""

    def imports(folder: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / folder)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return set(done.stdout.split())

    imports("cold")  # fills the cache unless another test has
    assert imports("warm") == set()
