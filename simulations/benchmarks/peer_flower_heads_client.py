"""The stock Flower ClientApp of ``peer_flower_heads.py``, written as in Flower's quickstart.

Generous to Flower: a worker reads the features once and keeps them, minibatches are plain slices
instead of a ``DataLoader``, and the app lies in a module, so Ray sends its name and not its code.
If the config names a folder of partitions, the client is the quickstart's: it reads its partition
and makes a ``DataLoader`` in each message.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peer_heads import BATCH, CLASSES, STEPS, load
from torch.utils.data import DataLoader, TensorDataset

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Read the features into this worker."""
    load(str(message.content.config_records["config"]["features"]))
    return Message(RecordDict(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the head on this site's features, and send it back with the number of rows."""
    config = message.content.config_records["config"]
    site = int(context.node_config["partition-id"])
    x, y, batches = site_data(str(config["features"]), str(config["partitions"]), site)
    head = torch.nn.Linear(x.shape[1], CLASSES)
    head.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    lr = cast(float, config["lr"])
    loss = fit(head, batches, lr)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(y)})
    content = RecordDict({"arrays": ArrayRecord(head.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def site_data(
    features: str, partitions: str, site: int
) -> tuple[torch.Tensor, torch.Tensor, Batches]:
    """Return a site's features, labels and batches: read now if there are partitions, else kept."""
    if partitions:
        with np.load(Path(partitions) / f"{site}.npz", allow_pickle=False) as file:
            x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
        return x, y, DataLoader(TensorDataset(x, y), batch_size=BATCH)
    every_x, every_y = load(features)
    x, y = torch.from_numpy(every_x[site]), torch.from_numpy(every_y[site])
    return x, y, zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True)


def write_partitions(folder: Path, features: str) -> None:
    """Write one file per site, as a site of the quickstart has its partition to itself."""
    for site, (x, y) in enumerate(zip(*load(features), strict=True)):
        np.savez(folder / f"{site}.npz", x=x, y=y)


def fit(head: torch.nn.Module, batches: Batches, lr: float) -> float:
    """Take ``STEPS`` SGD steps of ``BATCH`` rows and return the last step's loss."""
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    for x, y in itertools.islice(batches, STEPS):
        optimizer.zero_grad()
        loss = criterion(head(x), y)
        loss.backward()
        optimizer.step()
    return float(loss.item())
