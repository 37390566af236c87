"""What a site's examples have to be, and how they look through a head's map of features."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedtl.errors import DataError
from fedtl.train.fit import Examples
from fedtl.train.units import Units


def check_examples(examples: Examples, width: int, classes: int) -> None:
    """Refuse examples that are not finite, do not fit the head, or are of no known class.

    Raises
    ------
    DataError
        With code ``data.invalid``.
    """
    labels = examples.y
    fits = examples.x.shape == (len(labels), width) and len(examples.norms) == len(labels)
    known = not len(labels) or (int(labels.min()) >= 0 and int(labels.max()) < classes)
    if not (fits and known and bool(examples.norms.isfinite().all())):
        raise DataError(
            f"The site's examples are not {width} finite features in {classes} classes.",
            next_step="Extract the features again, and check the list of classes.",
        )


def seen(examples: Examples, x: torch.Tensor) -> Examples:
    """Return examples with other features of theirs, units included."""
    if x is examples.x:
        return examples
    made = Examples.of(x, examples.y)
    if examples.units is None:
        return made
    return replace(made, units=Units.of(x, [str(unit) for unit in examples.units.of_row.tolist()]))
