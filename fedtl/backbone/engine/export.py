"""From a torch backbone to an ONNX graph that gives the same numbers."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from fedtl.backbone.card import BackboneCard
from fedtl.backbone.engine.onnx import session
from fedtl.backbone.model import Backbone, build
from fedtl.errors import BackboneError

_log = logging.getLogger(__name__)

#: Largest difference to torch that a graph may show, relative to the largest feature.
TOLERANCE = 1e-4


def export(card: BackboneCard) -> bytes:
    """Export a backbone and verify the graph against torch on random pictures.

    Raises
    ------
    BackboneError
        With code ``backbone.export``: no exporter could do it; says what each one did.
    """
    backbone = build(card)
    probe = torch.randn(3, 3, card.image_size, card.image_size, generator=_generator())
    with torch.inference_mode():
        wanted = backbone(probe).numpy()
    troubles = []
    for name, exporter in _EXPORTERS.items():
        try:
            graph = exporter(backbone, probe[:2])
            difference = float(np.abs(session(graph, None)(probe.numpy()) - wanted).max())
        except Exception as error:  # exporters raise whatever they please, and there is a next one
            troubles.append(f"{name}: {type(error).__name__}")
            _log.debug("The exporter %s failed.", name, exc_info=True)
            continue
        if difference <= TOLERANCE * float(np.abs(wanted).max()):
            return graph
        troubles.append(f"{name}: differs by {difference:.2g}")
    raise BackboneError(
        f"{card.architecture!r} could not be exported to ONNX ({'; '.join(troubles)}).",
        next_step="Use the engine 'torch'.",
        code="backbone.export",
    )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@contextlib.contextmanager
def _no_graph_dump() -> Iterator[None]:
    """Keep the tracing exporter from printing thousands of lines where it fails.

    Its log cannot be switched off: torch takes the function that tells whether it is on for its
    answer (``setup_onnx_logging`` in torch/onnx/_internal/torchscript_exporter/utils.py).
    """
    internals: Any = torch._C
    before = internals._jit_onnx_log
    internals._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        internals._jit_onnx_log = before


def _trace(backbone: Backbone, example: torch.Tensor) -> bytes:
    """Export by tracing, which takes a tenth of the newer exporter's time."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), _no_graph_dump(), torch.inference_mode():
        # torch calls this exporter legacy, and tracing warns of each shape it takes for constant
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            backbone,
            (example,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            output_names=["features"],
            dynamic_axes={"x": {0: "n"}, "features": {0: "n"}},
        )
    return buffer.getvalue()


def _dynamo(backbone: Backbone, example: torch.Tensor) -> bytes:
    """Export with torch's newer exporter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("n")
        program = torch.onnx.export(
            backbone, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
    if program is None:
        raise RuntimeError("no program came out")
    graph: bytes = program.model_proto.SerializeToString()
    return graph


_EXPORTERS: dict[str, Callable[[Backbone, torch.Tensor], bytes]] = {
    "torchscript": _trace,
    "dynamo": _dynamo,
}
