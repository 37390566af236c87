"""The stock Flower ClientApp of ``peer_flower_images.py``: the frozen backbone runs in every round.

Generous to Flower: a worker builds the backbone and reads the images once and keeps both, and only
the head travels; Flower's quickstart would rebuild the model for each message and send all of it.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peer_backbone import DIM, cached_lite0, fashion_mnist, prepare
from peer_heads import CLASSES

BATCH = 32

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Read the images and build the backbone in this worker."""
    site_data(message.content.config_records["config"], context)
    cached_lite0()
    return Message(RecordDict(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the head for one epoch, and send it back with the number of images."""
    config = message.content.config_records["config"]
    images, labels = site_data(config, context)
    head = torch.nn.Linear(DIM, CLASSES)
    head.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(head.parameters(), lr=cast(float, config["lr"]))
    loss, right = epoch(head, optimizer, images, labels, pixels=cast(int, config["pixels"]))
    metrics = MetricRecord(
        {"train_loss": loss, "train_accuracy": right, "num-examples": len(labels)}
    )
    content = RecordDict({"arrays": ArrayRecord(head.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


def site_data(config: ConfigRecord, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return this site's share of the images: every n-th one, which is iid."""
    images, labels = fashion_mnist(str(config["folder"]), cast(int, config["images"]))
    first, step = context.node_config["partition-id"], context.node_config["num-partitions"]
    return images[int(first) :: int(step)], labels[int(first) :: int(step)]


def epoch(
    head: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    pixels: int,
) -> tuple[float, float]:
    """Take one SGD step per batch; return loss and accuracy as met before each step."""
    backbone, criterion = cached_lite0(), torch.nn.CrossEntropyLoss()
    loss_sum, right = 0.0, 0
    for first in range(0, len(labels), BATCH):
        y = torch.from_numpy(labels[first : first + BATCH])
        with torch.no_grad():
            features = backbone(prepare(images[first : first + BATCH], pixels=pixels))
        scores = head(features)
        optimizer.zero_grad()
        loss = criterion(scores, y)
        loss.backward()
        optimizer.step()
        loss_sum += float(loss.item()) * len(y)
        right += int((scores.argmax(1) == y).sum())
    return loss_sum / len(labels), right / len(labels)
