"""The bad sites of a simulation: what they send, or what they have learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from flwr.serverapp import Grid

from fedtl.data import SiteRows
from fedtl.recipe import Recipe
from fedtl.recipe.load import check_attack
from fedtl.transport.attacks import AttackedGrid, bad_sites


def attacked(recipe: Recipe, grid: Grid, names: Mapping[int, str]) -> Grid:
    """Return a grid some of whose sites send what the recipe's attack makes them send.

    Parameters
    ----------
    names : mapping of int to str
        Node id to site name, of all sites: the bad ones are drawn among them.

    Raises
    ------
    RecipeError
        The attack cannot be, or its share is not one site.
    """
    attack = recipe.attack
    if attack.kind in ("none", "label_flip"):
        return grid
    check_attack(recipe)
    return AttackedGrid(
        grid,
        kind=attack.kind,
        bad=bad_sites(names.values(), share=attack.share, seed=recipe.seed),
        names=names,
        seed=recipe.seed,
        strength=attack.strength,
    )


def learned_labels(
    recipe: Recipe, y: torch.Tensor, rows: Sequence[SiteRows], classes: int
) -> torch.Tensor:
    """Return the labels that sites learn from: true ones, but for bad sites that flip them.

    Such a site takes every training example of class c for one of class C - 1 - c (Tolpegin et al.
    2020, arXiv:2007.08432, flip single pairs; Fang et al. 2020, arXiv:1911.11815, section V-A, as
    here) and is honest in all the rest: it can be under secure aggregation, and it pays for its
    releases. Held-out labels stay true.

    Parameters
    ----------
    y : Tensor
        ``[n]`` true labels, site after site, training before held-out rows; left alone.
    rows : sequence of SiteRows
        The sites, in that order.
    classes : int
        C.
    """
    attack = recipe.attack
    if attack.kind != "label_flip":
        return y
    bad = bad_sites([r.name for r in rows], share=attack.share, seed=recipe.seed)
    learned, start = y.clone(), 0
    for site in rows:
        if site.name in bad:
            train = slice(start, start + len(site.train))
            learned[train] = classes - 1 - learned[train]
        start += len(site.train) + len(site.test)
    return learned
