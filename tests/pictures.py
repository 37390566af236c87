"""A site's files: twenty real pictures of two kinds, and a state folder that names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fedtl.site.folder import make_site


def small_site(place: Path) -> Path:
    """Write ``images`` and the state folder ``site`` into a folder; return the latter."""
    rng = np.random.default_rng(0)
    for at in range(20):
        label = ("benign", "malignant")[at % 2]
        (place / "images" / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(90 * (at % 2), 90 * (at % 2) + 120, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / label / f"{at}.png")
    state = place / "site"
    make_site(state, name="north", source=str(place / "images"))
    file = state / "site.toml"
    file.write_text(file.read_text().replace("image_size = 0", "image_size = 32"))
    return state
