"""What protects the records: the policy in plain words, the ledger, and who can read the files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fedtl.data import Manifest
from fedtl.launch.ledgers import LEDGER
from fedtl.privacy.ledger import Budget, DataSet, Ledger, epsilon_spent
from fedtl.privacy.ledger.clock import AHEAD, BACK, Reading, agreed, read_clock
from fedtl.privacy.ledger.spend import REFERENCE_DELTA
from fedtl.report.words import count, duration, plural, privacy
from fedtl.site.config import IDENTITY, POLICY_FILE, SITE_FILE, SiteFolder
from fedtl.site.node_key import NODE_KEY
from fedtl.site.policy import SitePolicy
from fedtl.types import Finding

NEARLY = 0.8
"""Share of a budget from which on its end is told."""
_PRIVATE = (SITE_FILE, POLICY_FILE, LEDGER, IDENTITY, NODE_KEY)


def policy_in_words(policy: SitePolicy, *, there: bool) -> Iterator[Finding]:
    """Say what a policy means; what gives protection away is a note."""
    if not there:
        what = f"there is no {POLICY_FILE}: the strict default holds"
        yield Finding("policy", "note", what, "Write one with `fedtl site init` in a new folder.")
    yield from _on_budget(policy.budget)
    yield from _on_updates(policy)
    if policy.clear_metrics:
        least = policy.suppress_below
        what = "held-out results and counts of labels may leave without noise"
        what += f", from {count(least)} held-out examples on" if least else ", however few"
        cure = "Set clear_metrics = false, unless the numbers are public anyway."
        yield Finding("results", "note", what, cure)
    else:
        yield Finding(
            "results", "ok", "held-out results and counts of labels leave with noise only"
        )
    if policy.releases:
        yield Finding("releases", "ok", f"a plan may contain {', '.join(policy.releases)} only")
    if policy.tell_budget:
        yield Finding("budget told", "ok", "the coordinator is told what is left of the budget")
    yield from _on_partners(policy)
    if policy.accept_backbones:
        what = "the coordinator may send a model file, which is checked and never run as code"
    else:
        what = "only the backbone that site.toml names is used"
    yield Finding("backbones", "ok", what)


def _on_budget(budget: Budget | None) -> Iterator[Finding]:
    if budget is None:
        what = "no budget of its own: each run may spend what its plan says, one after the other"
        yield Finding("budget", "note", what, "Set [budget] epsilon and delta in policy.toml.")
        return
    period = "for ever" if budget.period_days is None else f"in {budget.period_days:g} days"
    what = (
        f"no record spends more than epsilon {budget.epsilon:g} at delta {budget.delta:g} {period}"
    )
    yield Finding("budget", "ok", what)


def _on_updates(policy: SitePolicy) -> Iterator[Finding]:
    if policy.unprotected:
        what = "updates may leave as they are: one of them can give away an example and its label"
        yield Finding("updates", "note", what, "Set unprotected = false.")
    elif policy.only_sealed:
        yield Finding(
            "updates", "ok", "updates leave hidden in a sum over sites, and not otherwise"
        )
    else:
        yield Finding("updates", "ok", "updates leave private by a plan, or hidden in a sum")
    if policy.least_sites:
        what = f"a sum must keep {plural(policy.least_sites, 'site')} to its end"
        yield Finding("sums", "ok", what)


def _on_partners(policy: SitePolicy) -> Iterator[Finding]:
    for noun, verb, named in (
        ("coordinators", "ask", policy.coordinators),
        ("recipes", "be run", policy.recipes),
    ):
        if named:
            shown = ", ".join(f"{one[:12]}..." for one in named[:3])
            yield Finding(noun, "ok", f"only {count(len(named))} may {verb}: {shown}")
        else:
            what = f"any may {verb} that keeps to the rules above"
            yield Finding(noun, "ok", what, f"To name some, list fingerprints under {noun}.")


def policy_against_data(policy: SitePolicy, manifest: Manifest) -> Iterator[Finding]:
    """Find rules that make no sense for the data at hand."""
    n_test = int(manifest.test.sum())
    n_train = len(manifest) - n_test
    if n_train < policy.least_examples:
        what = f"least_examples = {policy.least_examples}, but there are {n_train}: all is refused"
        yield Finding("examples", "broken", what, "Add images, or lower it in policy.toml.")
    units, noun = n_train, "example"
    if manifest.groups is not None:
        units, noun = len(set(manifest.subset(~manifest.test).groups or ())), "group"
    if policy.budget is not None and policy.budget.delta * units >= 1:
        what = (
            f"delta = {policy.budget.delta:g} is not below 1 / {plural(units, noun)} for training: "
            "handing out one of them whole would keep to it"
        )
        yield Finding("delta", "note", what, f"Lower it, e.g. to {0.1 / units:.0e}.")
    if policy.clear_metrics and n_test < policy.suppress_below:
        what = f"{n_test} held-out examples are fewer than suppress_below: none is ever told"
        yield Finding("suppressed", "note", what, "Raise data.test_fraction, or add images.")


def look_at_ledger(
    site: SiteFolder, manifest: Manifest | None, clock: Reading | None = None
) -> Iterator[Finding]:
    """See whether the ledger is whole, and what was spent against the policy's budget.

    Parameters
    ----------
    manifest : Manifest or None
        The data at hand; None: all data sets that were ever charged.
    clock : Reading, optional
        Of the clocks; read by default.
    """
    path = site.folder / LEDGER
    if not path.exists() and not path.is_symlink():
        yield Finding("ledger", "ok", "none yet; the first private release makes it")
        return
    with Ledger.open(path, read_only=True) as ledger:
        verified = ledger.verify()
        number = "1 entry" if verified.entries == 1 else f"{count(verified.entries)} entries"
        yield Finding("ledger", "ok", f"whole, {number}, last {verified.hash[:16]}")
        entries = ledger.entries()
        if entries:
            yield from _on_time(entries[-1].reading, clock or read_clock())
        yield from _spent(ledger, site.policy.budget, manifest)


def _on_time(last: Reading, now: Reading) -> Iterator[Finding]:
    fault = agreed(last, now)[1]
    if fault == BACK:
        what = f"the clock is {duration(last.utc - now.utc)} before the ledger's last entry"
    elif fault == AHEAD:
        what = "the clock was set forward since the ledger's last entry"
    else:
        return
    cure = "Set the clock, and let it be kept right by NTP; until then budget periods last longer."
    yield Finding("ledger clock", "note", what, cure)


def _spent(ledger: Ledger, budget: Budget | None, manifest: Manifest | None) -> Iterator[Finding]:
    delta = REFERENCE_DELTA if budget is None else budget.delta
    for name, sets in _data_sets(ledger, manifest).items():
        epsilon = epsilon_spent(ledger, sets, budget)
        what = f"the worst record of {name} has spent epsilon {privacy(epsilon)}"
        if budget is None:
            yield Finding("spent", "ok", f"{what} at delta {delta:g}")
            continue
        what += f" of {budget.epsilon:g}"
        if epsilon >= budget.epsilon:
            cure = "Wait for the end of the period, or raise the budget in policy.toml."
            yield Finding("spent", "broken", f"{what}: nothing more is released", cure)
        else:
            near = epsilon >= NEARLY * budget.epsilon
            cure = "Plan the next run with `fedtl ledger plan`." if near else ""
            yield Finding("spent", "note" if near else "ok", what, cure)


def _data_sets(ledger: Ledger, manifest: Manifest | None) -> dict[str, list[DataSet]]:
    """Return the data at hand as the ledger knows them: by example, and by group if there are."""
    if manifest is None:
        return {"all data sets so far": ledger.datasets()}
    found = {}
    for name, rows in (("training", ~manifest.test), ("held out", manifest.test)):
        part = manifest.subset(rows)
        sets = [DataSet.of(part.digests)]
        if part.groups is not None:
            sets.append(DataSet.of(part.digests, groups=part.groups, salt=ledger.salt))
        if len(part):
            found[f"the {len(part):,} images {'for training' if name == 'training' else name}"] = (
                sets
            )
    return found


def look_at_place(site: SiteFolder) -> Iterator[Finding]:
    """See that the state folder is not read as one of the classes."""
    source = site.config.data.source
    images = Path(source).expanduser()
    if source and images.is_dir() and site.folder.resolve().is_relative_to(images.resolve()):
        what = "the state folder lies among the images, where it is taken for a class"
        yield Finding("place", "broken", what, "Move it out of the folder of the images.")


def look_at_permissions(folder: Path) -> Iterator[Finding]:
    """See who else on this machine can read or change the site's files."""
    if os.name != "posix":
        return
    open_to_write, open_to_read = [], []
    for path in (folder, *(folder / name for name in _PRIVATE)):
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o022:
                open_to_write.append(path.name)
            elif mode & 0o044:
                open_to_read.append(path.name)
    cure = f"chmod 700 '{folder}' and chmod 600 on the files in it."
    if open_to_write:
        what = f"others may change {', '.join(open_to_write)}, and with it what may leave"
        yield Finding("permissions", "broken", what, cure)
    elif open_to_read:
        what = f"others may read {', '.join(open_to_read)}"
        yield Finding("permissions", "note", what, cure)
    else:
        yield Finding("permissions", "ok", "only this account can read and change the state folder")
