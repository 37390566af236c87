"""Strategies by name: plain Flower ``Strategy`` classes.

Flower's own classes are used wherever they behave. Anyone's own class is named by
``path/to/file.py:Class`` or registered under the entry point group ``fedtl.strategies``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, nearest
from fedtl.plugins import OWN, classes_in, module_of, target_of
from fedtl.strategies.around import Around
from fedtl.strategies.load import instance as instance
from fedtl.strategies.load import load_class

if TYPE_CHECKING:
    from fedtl.recipe import Recipe

GROUP = "fedtl.strategies"
"""Of the entry points by which packages register strategies."""
_FLOWER = "flwr.serverapp.strategy"
_ROBUST = "fedtl.strategies.robust"
_PERSONAL = "fedtl.strategies.personal"
STRATEGIES: dict[str, str] = {
    "fedavg": f"{_FLOWER}:FedAvg",
    "fedavgm": f"{_FLOWER}:FedAvgM",
    "fedprox": f"{_FLOWER}:FedProx",
    "logit_adjusted": "fedtl.strategies.logit_adjusted:LogitAdjustedFedAvg",
    "fedbuff": "fedtl.strategies.fedbuff:FedBuff",
    "fedasync": "fedtl.strategies.fedasync:FedAsync",
    "qfedavg": "fedtl.strategies.qfedavg:QFedAvg",
    "afl": "fedtl.strategies.afl:AgnosticFedAvg",
    "ifca": "fedtl.strategies.ifca:IFCA",
    "fednova": "fedtl.strategies.fednova:FedNova",
    "fedadagrad": f"{_FLOWER}:FedAdagrad",
    "scaffold": "fedtl.strategies.scaffold:Scaffold",
    "feddyn": "fedtl.strategies.feddyn:FedDyn",
    "fedadam": f"{_FLOWER}:FedAdam",
    "fedyogi": f"{_FLOWER}:FedYogi",
    "fedmedian": f"{_FLOWER}:FedMedian",
    "fedtrimmedavg": f"{_FLOWER}:FedTrimmedAvg",
    "median": f"{_ROBUST}.median:Median",
    "trimmed_mean": f"{_ROBUST}.trimmed_mean:TrimmedMean",
    "krum": f"{_ROBUST}.krum:Krum",
    "multikrum": f"{_ROBUST}.krum:MultiKrum",
    "bulyan": f"{_ROBUST}.bulyan:Bulyan",
    "rfa": f"{_ROBUST}.rfa:RFA",
    "fltrust": f"{_ROBUST}.fltrust:FLTrust",
    "centred_clipping": f"{_ROBUST}.centred_clipping:CentredClipping",
    "norm_bounding": f"{_ROBUST}.norm_bounding:NormBounding",
    "fine_tuned": f"{_PERSONAL}.fine_tuned:FineTuned",
    "ditto": f"{_PERSONAL}.ditto:Ditto",
    "apfl": f"{_PERSONAL}.apfl:APFL",
    "mixture": f"{_PERSONAL}.mixture:Mixture",
    "fedper": f"{_PERSONAL}.fedper:FedPer",
    "fedrep": f"{_PERSONAL}.fedrep:FedRep",
    "fed3r": "fedtl.strategies.fed3r:Fed3R",
    "fedncm": "fedtl.strategies.fedncm:FedNCM",
    "fedcof": "fedtl.strategies.fedcof:FedCOF",
    "fedlda": "fedtl.strategies.fedlda:FedLDA",
    "fedpft": "fedtl.strategies.fedpft:FedPFT",
    "refined": "fedtl.strategies.refined:Refined",
    "fedwhiten": "fedtl.strategies.fedwhiten:FedWhiten",
}
"""Name to ``module:Class``."""
WRAPPERS: dict[str, str] = {
    "nnm": f"{_ROBUST}.nnm:NearestNeighbourMixing",
    "bucketing": f"{_ROBUST}.bucketing:Bucketing",
    "server_rate": "fedtl.strategies.server_rate:ServerRate",
    "early_stopping": "fedtl.strategies.early_stopping:EarlyStopping",
    **{name: STRATEGIES[name] for name in ("fine_tuned", "ditto", "apfl", "mixture")},
}
"""Name to ``module:Class``, of :class:`fedtl.strategies.around.Around` in ``[strategy.around]``."""


def strategy_of(recipe: Recipe) -> Strategy:
    """Return the strategy that a recipe asks for, inside its wrappers.

    Raises
    ------
    StrategyError
        See :func:`make_strategy`.
    """
    return make_strategy(
        recipe.strategy.name, recipe.strategy.options, around=recipe.strategy.around
    )


def make_strategy(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    around: Mapping[str, Mapping[str, Any]] | None = None,
) -> Strategy:
    """Make a strategy by name, or from ``path/to/file.py:Class``.

    Parameters
    ----------
    options : mapping, optional
        Keyword arguments of the class. Flower's minimum numbers of nodes are set to 1 where the
        class has them and they are not given: how many sites take part is the recipe's business.
    around : mapping of str to mapping, optional
        Wrappers and their options, the outermost first: it is the first that replies go through.

    Raises
    ------
    StrategyError
        Unknown name, unreadable file, not a ``Strategy``, or options it does not take.
    """
    strategy = instance(strategy_class(name), options, name=name)
    for wrapper, given in reversed(list((around or {}).items())):
        strategy = _wrapped(wrapper, given, strategy)
    return strategy


def _wrapped(name: str, options: Mapping[str, Any], inner: Strategy) -> Strategy:
    target = name if ":" in name else WRAPPERS.get(name, "")
    if not target:
        raise StrategyError(
            f"Wrapper '{name}' is unknown.",
            next_step=f"{nearest(name, WRAPPERS)} {OWN}",
        )
    cls: Any = load_class(target, name=name)
    if not issubclass(cls, Around):
        raise StrategyError(
            f"'{name}' goes around no strategy: it is none of fedtl's wrappers.",
            next_step="Derive it from fedtl.strategies.around.Around.",
        )
    try:
        return instance(partial(cls, inner), options, name=name)  # type: ignore[arg-type]
    except StrategyError as error:
        cure = error.next_step.replace("strategy.options", f"strategy.around.{name}")
        raise StrategyError(error.problem, next_step=cure, code=error.code) from error


def strategy_class(name: str) -> type[Strategy]:
    """Return the class behind a known name, or in ``path/to/file.py:Class``.

    Raises
    ------
    StrategyError
        A name that nobody or more than one has, an unreadable file, or nothing there that is a
        whole Flower ``Strategy``.
    """
    if ":" in name:
        return load_class(name, name=name)
    if name.endswith(".py"):
        classes = classes_in(module_of(name, name, what="Strategy", error=StrategyError), Strategy)
        raise StrategyError(
            f"'{name}' names a file, and no class in it.",
            next_step=f"Write {' or '.join(f'{name}:{cls}' for cls in classes or ['Class'])}.",
        )
    target = target_of(name, STRATEGIES, GROUP, what="Strategy", error=StrategyError)
    return load_class(target, name=name)
