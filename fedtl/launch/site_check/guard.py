"""An examination that fails is a finding itself: the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fedtl.errors import FedtlError
from fedtl.types import Finding


def guarded(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what an examination finds, up to where it fails, and that it failed."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except FedtlError as error:
        findings.append(broken(name, error))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        findings.append(Finding(name, "broken", what, "Report this."))
    return findings


def broken(name: str, error: FedtlError) -> Finding:
    """Return a mistake that the user can mend as a finding."""
    return Finding(name, "broken", error.problem, error.next_step)
