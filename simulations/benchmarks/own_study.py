"""A study as `fedtl compare` runs it, on features of random numbers; prints one line of JSON.

Five strategies, three seeds, twenty rounds, 100 sites with 600 training rows of 1,280 features:
the features are put into the cache under the backbone's own key, so that no picture is looked at,
and everything after that is what a user's study does. ``write`` makes data, features and plan in
FEDTL_HOME (not timed), ``run`` runs the plan in a process of its own, table and figures included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, HELD_OUT, BLOCK = 10, 100, 5000
STRATEGIES = ("fedavg", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg")
PLAN = """\
name = "speed"
seeds = {seeds}
baseline = "fedavg"

[base]
data = {{ source = "pictures.npz" }}
partition = {{ kind = "iid", sites = {sites} }}
backbone = {{ taps = "final" }}
train = {{ rounds = {rounds}, local_steps = 5 }}
privacy = {{ enabled = false }}
"""


def write(folder: Path, *, sites: int, rows: int, rounds: int, seeds: int) -> dict[str, Any]:
    """Write pictures of one random pixel row each, their random features, and the plan."""
    from fedtl.data import open_data
    from fedtl.features.cache import FeatureCache
    from fedtl.launch.opening import card_of
    from fedtl.recipe import Backbone

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    held_out = round(rows * HELD_OUT / 600)
    split = ["train"] * rows + ["test"] * held_out
    n = sites * len(split)
    y = np.arange(n) % CLASSES
    pixels = random.integers(0, 256, (n, 1, 32), dtype=np.uint8)
    np.savez(folder / "pictures.npz", x=pixels, y=y, split=np.array(split * sites))
    card = card_of(Backbone(taps="final"))
    data, cache = open_data(str(folder / "pictures.npz")), FeatureCache(card.digest(), card.width)
    centres = random.standard_normal((CLASSES, card.width), dtype=np.float32)
    for start in range(0, n, BLOCK):
        some = slice(start, start + BLOCK)
        x = random.standard_normal((len(y[some]), card.width), dtype=np.float32)
        cache.add(data.digests[some], notes=[""] * len(x), x=x + 0.1 * centres[y[some]])
    strategies = "".join(f'\n[[strategy]]\nname = "{name}"\n' for name in STRATEGIES)
    plan = PLAN.format(seeds=list(range(1, seeds + 1)), sites=sites, rounds=rounds) + strategies
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    return {"rows": n, "width": card.width}


def run(folder: Path, *, jobs: int) -> dict[str, Any]:
    """Run the plan as a user does, and return its seconds and what it found."""
    shutil.rmtree(folder / "study", ignore_errors=True)
    command = [sys.executable, "-m", "fedtl", "compare", folder / "plan.toml", "--json", "--quiet"]
    begun = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in (*command, "--out", folder / "study", "--jobs", jobs)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - begun
    found = json.loads(done.stdout)
    return {
        "seconds": round(seconds, 3),
        "accuracy": {row["label"]: round(row["accuracy"]["mean"], 4) for row in found["rows"]},
        "seconds_of_rounds": {
            row["label"]: round(row["seconds"]["mean"], 3) for row in found["rows"]
        },
        "failed": found["failed"],
    }


def main() -> None:
    """Read the arguments, write or run, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    made = modes.add_parser("write", help="write data, features and the plan")
    made.add_argument("folder", type=Path)
    for name, usual in (("sites", 100), ("rows", 600), ("rounds", 20), ("seeds", 3)):
        made.add_argument(f"--{name}", type=int, default=usual, help="default: %(default)s")
    timed = modes.add_parser("run", help="run the plan and print its seconds")
    timed.add_argument("folder", type=Path)
    timed.add_argument("--jobs", type=int, default=0, help="default: all cores")
    arguments = vars(parser.parse_args())
    mode = {"write": write, "run": run}[arguments.pop("mode")]
    print(json.dumps(mode(**arguments)))  # type: ignore[operator]


if __name__ == "__main__":
    main()
