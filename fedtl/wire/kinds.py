"""The types of fedtl's messages, by name; what they say is in the modules beside this one.

Importing this brings nothing else, because the thin ClientApp does, anew for every message.
"""

from __future__ import annotations

TRAIN, LABELS = "train", "train.labels"
EVALUATE, DESCRIBE = "evaluate", "query.describe"
STATISTICS, MEAN, COVARIANCE = "train.statistics", "train.mean", "train.covariance"
SUMS = "train.sums"
ADDITIVE = {STATISTICS: "statistics", MEAN: "mean", COVARIANCE: "covariance", SUMS: "sums"}
"""Messages that ask for sums over examples, and the mechanism of their release."""
MECHANISMS = {TRAIN: "gradients", **ADDITIVE, LABELS: "labels", EVALUATE: "metrics"}
"""Message type to the mechanism that its answer is released by."""
BACKBONE = "query.backbone"
KEYS, SHARES = "query.secagg_keys", "query.secagg_shares"
CONFIRM, REVEAL = "query.secagg_confirm", "query.secagg_reveal"
