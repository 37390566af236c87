"""Why known strategies break the laws that they break; read in their source, Flower 1.41."""

from __future__ import annotations

_NOISE = (
    "It adds noise from NumPy's global generator, which no seed of a run reaches: two runs are two "
    "heads, and nothing that compares heads can hold. "
)
WHY: dict[str, str] = {
    "Bulyan": (
        "It empties the replies as it reads them (`to_numpy_ndarrays(keep_input=False)`), so that "
        "nobody can look at them afterwards. With `num_malicious_nodes = 0`, its default, it is a "
        "plain mean that does not weigh sites by their examples."
    ),
    "DifferentialPrivacyClientSideAdaptiveClipping": (
        "It needs a `norm_bit` in every reply, which Flower's `adaptiveclipping_mod` adds at the "
        "client; sites of fedtl say nothing that their plan does not cover."
    ),
    "DifferentialPrivacyClientSideFixedClipping": (
        _NOISE + "One failure voids the round. In fedtl privacy is the sites' business: "
        "`[privacy]` in the recipe."
    ),
    "DifferentialPrivacyServerSideAdaptiveClipping": (
        _NOISE + "It replaces the arrays in the replies by clipped ones, divides by the number of "
        "replies where there are none, and by the length of an update where that is zero."
    ),
    "DifferentialPrivacyServerSideFixedClipping": (
        _NOISE + "It replaces the arrays in the replies by clipped ones, and divides by the length "
        "of an update where that is zero."
    ),
    "FedAdam": (
        "Its bias correction is a NumPy float64 scalar, which makes the head float64: twice the "
        "bytes in Flower's own loop. fedtl's makes it float32 again."
    ),
    "FedMedian": "It takes the arrays out of the replies (`ArrayRecord.pop`).",
    "FedTrimmedAvg": "It takes the arrays out of the replies (`ArrayRecord.pop`).",
    "fedasync": (
        "Replies are mixed in as if they came one after the other, each with its share: the more "
        "there are, the further they go."
    ),
    "bucketing around median": (
        "Buckets are drawn by place in the list of replies, which fedtl's loop puts in the order "
        "of the sites' names."
    ),
    "FedXgbCyclic": (
        "It remembers whose turn it is by the numbers of nodes: a site that comes back under "
        "another one has to queue up again."
    ),
    "FedXgbBagging": "It is for trees: its one array is called `0` and holds bytes.",
    "QFedAvg": "It needs a `train_loss` in every reply; sites of fedtl do not tell one.",
}
"""Name of a strategy to the reason."""
