"""The stock Flower ClientApp of ``peer_flower_heads.py``, written as in Flower's quickstart.

Generous to Flower: a worker reads the features once and keeps them, minibatches are plain slices
instead of a ``DataLoader``, and the app lies in a module, so Ray sends its name and not its code.
"""

from __future__ import annotations

from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peer_heads import BATCH, CLASSES, STEPS, load

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
    x, y = load(str(config["features"]))
    site = int(context.node_config["partition-id"])
    head = torch.nn.Linear(x.shape[2], CLASSES)
    head.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    lr = cast(float, config["lr"])
    loss = fit(head, torch.from_numpy(x[site]), torch.from_numpy(y[site]), lr)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(y[site])})
    content = RecordDict({"arrays": ArrayRecord(head.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


def fit(head: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float) -> float:
    """Take ``STEPS`` SGD steps of ``BATCH`` rows and return the last step's loss."""
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        loss = criterion(head(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
    return float(loss.item())
