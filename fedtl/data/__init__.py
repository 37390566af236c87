"""Data sets: opened by name or path, checked, split by hash, and partitioned for simulation."""

from fedtl.data.images import Picture, bit_depth, decode, to_rgb
from fedtl.data.manifest import Manifest, Problem, Source
from fedtl.data.open import open_data
from fedtl.data.partition import PARTITIONS, SiteRows, partition

__all__ = [
    "PARTITIONS",
    "Manifest",
    "Picture",
    "Problem",
    "SiteRows",
    "Source",
    "bit_depth",
    "decode",
    "open_data",
    "partition",
    "to_rgb",
]
