"""pfl-research trains linear heads on cached features in one process; prints one line of JSON.

``SimulatedBackend``, ``FederatedAveraging`` and ``PyTorchModel`` as in pfl's own tutorials, the
features as tensors made beforehand. The rounds are timed from the first
``get_next_central_contexts`` to the end of the last model update.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import peer_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

STARTED = time.perf_counter()


def run(features: str, *, sites: int, rounds: int, threads: int) -> peer_heads.HeadsResult:
    """Run the job and return what it took.

    Parameters
    ----------
    features : str
        The ``.npz`` file.
    sites, rounds : int
        Size of the job.
    threads : int
        Threads that torch may use.
    """
    import torch
    from pfl.aggregate.simulate import SimulatedBackend

    torch.set_num_threads(threads)
    head = _head(peer_heads.load(features)[0].shape[2])
    model = _model(head)
    users = _users(features)
    begun, ended = _train(model, SimulatedBackend(users, users), sites=sites, rounds=rounds)
    weight, bias = (tensor.detach().numpy() for tensor in head.parameters())
    loss, accuracy = peer_heads.judge(weight, bias, path=features)
    return peer_heads.HeadsResult(
        peer=f"pfl {_version()} in one process, {threads} threads",
        sites=sites,
        rounds=rounds,
        seconds=ended - begun,
        startup_seconds=begun - STARTED,
        loss=loss,
        accuracy=accuracy,
    )


def _version() -> str:
    """Return the installed version of pfl, which does not carry it in the package."""
    from importlib.metadata import version

    return version("pfl")


def _head(dim: int) -> nn.Linear:
    """Return a linear head at zero with the two methods that pfl asks of a module."""
    import torch
    from torch import nn

    class Head(nn.Linear):
        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self(x), y)

        @torch.no_grad()
        def metrics(self, x: Tensor, y: Tensor) -> dict[str, float]:
            return {"loss": float(self.loss(x, y))}

    head = Head(dim, peer_heads.CLASSES)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _model(head: nn.Linear) -> Any:
    """Wrap the head for pfl: SGD at the sites, plain averaging at the server."""
    import torch
    from pfl.model.pytorch import PyTorchModel

    return PyTorchModel(
        head,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(head.parameters(), lr=1.0),
    )


def _users(features: str) -> Any:
    """Return the sites as pfl's users, each one's tensors made once; every round takes them all."""
    import torch
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler

    data = [
        PyTorchTensorDataset((torch.from_numpy(x), torch.from_numpy(y)), user_id=str(site))
        for site, (x, y) in enumerate(zip(*peer_heads.load(features), strict=True))
    ]
    sampler = get_user_sampler("minimize_reuse", range(len(data)))
    return FederatedDataset(data.__getitem__, sampler)


def _train(model: Any, backend: Any, *, sites: int, rounds: int) -> tuple[float, float]:
    """Train with federated averaging; return when the first round began and the last one ended."""
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.hyperparam.base import NNTrainHyperParams

    times: list[float] = []

    class Averaging(FederatedAveraging):  # type: ignore[misc]
        def get_next_central_contexts(self, *arguments: Any) -> Any:
            times.append(time.perf_counter())
            contexts, model, metrics = super().get_next_central_contexts(*arguments)
            # pfl evaluates every site twice in its first round and has no setting against it.
            quick = contexts and tuple(replace(c, do_evaluation=False) for c in contexts)
            return quick, model, metrics

    algorithm = NNAlgorithmParams(
        central_num_iterations=rounds,
        evaluation_frequency=rounds,
        train_cohort_size=sites,
        val_cohort_size=0,
    )
    local = NNTrainHyperParams(
        local_batch_size=peer_heads.BATCH,
        local_num_epochs=None,
        local_num_steps=peer_heads.STEPS,
        local_learning_rate=peer_heads.LEARNING_RATE,
    )
    # The contexts are asked for once more after the last round, which is when it has ended.
    Averaging().run(algorithm, backend, model, local, send_metrics_to_platform=False)
    return times[0], times[-1]


def main() -> None:
    """Read the arguments, run the job and print its result."""
    parser = peer_heads.parser(__doc__)
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    arguments = parser.parse_args()
    sites = peer_heads.check(arguments, parser)
    run(arguments.features, sites=sites, rounds=arguments.rounds, threads=arguments.threads).print()


if __name__ == "__main__":
    main()
