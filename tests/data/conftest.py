from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a real picture, different for each seed, and return its path."""

    def write(path: str, seed: int = 0, *, mode: str = "L", size: tuple[int, int] = (9, 7)) -> Path:
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).convert(mode).save(target)
        return target

    return write


@pytest.fixture
def folder(tmp_path: Path, save: Save) -> Path:
    """A folder of two classes with six pictures each."""
    for number in range(6):
        save(f"pets/cat/{number}.png", number)
        save(f"pets/dog/{number}.png", 100 + number)
    return tmp_path / "pets"
