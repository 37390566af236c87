"""A site's own files: what is wrong in them is named with its place and a cure, never guessed."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from fedtl.errors import ConfigError
from fedtl.privacy.ledger import Budget
from fedtl.site.config import (
    BudgetTable,
    PolicyFile,
    SiteConfig,
    load_config,
    load_policy,
    read_site,
)
from fedtl.site.folder import make_site, name_for
from fedtl.site.policy import STRICT, SitePolicy

PRINT = "AB:" * 31 + "AB"


def site(tmp_path: Path, text: str) -> SiteConfig:
    (tmp_path / "site.toml").write_text(text)
    return load_config(tmp_path / "site.toml")


def policy(tmp_path: Path, text: str) -> SitePolicy:
    (tmp_path / "policy.toml").write_text(text)
    return load_policy(tmp_path / "policy.toml")


def test_a_new_site_is_private_and_reads_back_as_what_was_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "site"
    make_site(folder, name="north", source='/data/it\'s "mine"')
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {
        "site.toml": 0o600,
        "policy.toml": 0o600,
        "node.key": 0o600,
        "node.pub": 0o644,
    }
    made = read_site(folder)
    assert made.has_policy
    assert made.config == SiteConfig.model_validate(
        {"name": "north", "data": {"source": '/data/it\'s "mine"'}}
    )
    assert made.policy == SitePolicy(Budget(8.0, 1e-5))


def test_the_files_of_a_new_site_name_every_key(tmp_path: Path) -> None:
    """Errors send people there to look keys up."""
    make_site(tmp_path / "site", name="north")
    own, rules = (
        (tmp_path / "site" / name).read_text("utf-8") for name in ("site.toml", "policy.toml")
    )
    assert tomllib.loads(own).keys() == SiteConfig.model_fields.keys()
    assert (
        tomllib.loads(own)["data"].keys()
        == SiteConfig.model_fields["data"].default.model_dump().keys()
    )
    assert tomllib.loads(rules).keys() == PolicyFile.model_fields.keys()
    assert all(f"{key} = " in rules for key in BudgetTable.model_fields)


@pytest.mark.parametrize("there", ["site.toml", "policy.toml", "photo.jpg"])
def test_nothing_is_ever_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigError, match=there) as error:
        make_site(tmp_path, name="north")
    assert error.value.code == "config.exists"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(there, "mine")]


def test_a_ledger_that_was_put_back_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("mine")
    make_site(tmp_path, name="north")
    assert (tmp_path / "ledger.sqlite").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "-x", "north hospital", "a/b", "x" * 62, "é", "a\nb"])
def test_a_name_that_others_cannot_write_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="--name") as error:
        make_site(tmp_path / "site", name=name)
    assert "name" in error.value.problem
    assert not (tmp_path / "site").exists()


def test_a_folder_lends_its_name_only_where_it_can_be_one(tmp_path: Path) -> None:
    assert name_for(tmp_path / "north..") == "north"
    assert name_for(tmp_path / "日本") == "site"
    assert name_for(tmp_path / ("x" * 99)) == "x" * 61


@pytest.mark.parametrize(
    ("text", "problem", "cure"),
    [
        ("name = ", "not readable TOML", "Mend"),
        ("devise = 'cpu'\nname = 'n'", "'devise'", "Did you mean 'device'"),
        ("name = 'n'\n[data]\nsorce = 'x'", "'data.sorce'", "Did you mean 'source'"),
        ("name = 'n'\n[backbone]\nimage = 3", "'backbone.image'", "'image_size'"),
        ("name = 'n'\ndevice = 'gpu'", "device = 'gpu'", "Known: auto, cpu, cuda, mps"),
        ("name = 'n'\nthreads = -1", "threads = -1", "Correct the value"),
        ("name = 'a b'", "name = 'a b'", "Correct the value"),
        ("", "'name' is missing", "fedtl site init"),
        ("name = 'n'\n[server]\naddress = 'http://x:1'", "server.address", "Correct the value"),
        ("name = 'n'\ndevice = 'cuda'\n[backbone]\nengine = 'onnx'", "runs on the CPU", "Change"),
        ("name = 'n'\n[server]\nprivate_key = 'k'", "belong together", "Change"),
    ],
)
def test_what_is_wrong_in_a_site_file_is_named(
    tmp_path: Path, text: str, problem: str, cure: str
) -> None:
    with pytest.raises(ConfigError) as error:
        site(tmp_path, text)
    assert problem in error.value.problem
    assert "site.toml" in error.value.problem
    assert cure in error.value.next_step


@pytest.mark.parametrize(
    ("text", "problem", "cure"),
    [
        ("unprotected = ", "not readable TOML", "Mend"),
        ("clear_metric = true", "'clear_metric'", "Did you mean 'clear_metrics'"),
        ("[budget]\nepsilon = 8\ndelta = 1e-5\nperiod = 3", "'budget.period'", "'period_days'"),
        ("[budget]\nepsilon = 8", "'budget.delta' is missing", "fedtl site init"),
        ("[budget]\nepsilon = inf\ndelta = 1e-5", "budget.epsilon = inf", "Correct"),
        ("[budget]\nepsilon = 8\ndelta = 1", "budget.delta = 1", "Correct"),
        ("[budget]\nepsilon = 8\ndelta = 1e-5\nperiod_days = 0", "period_days = 0", "Correct"),
        ("suppress_below = -1", "suppress_below = -1", "Correct"),
        ("unprotected = 'maybe'", "unprotected = 'maybe'", "Correct"),
        ("coordinators = ['ab']", "64 hexadecimal digits", "Correct"),
        ("recipes = [3]", "64 hexadecimal digits", "Correct"),
        ("unprotected = true\nonly_sealed = true", "contradict each other", "Change one"),
        ("unprotected = true\n[budget]\nepsilon = 8\ndelta = 1e-5", "[budget] empty", "Change one"),
    ],
)
def test_what_is_wrong_in_a_policy_is_refused_and_never_a_default(
    tmp_path: Path, text: str, problem: str, cure: str
) -> None:
    with pytest.raises(ConfigError) as error:
        policy(tmp_path, text)
    assert problem in error.value.problem
    assert "policy.toml" in error.value.problem
    assert cure in error.value.next_step


def test_a_policy_becomes_the_rules_that_the_site_keeps_to(tmp_path: Path) -> None:
    text = f"""
        only_sealed = true
        clear_metrics = true
        suppress_below = 7
        least_examples = 20
        least_sites = 3
        accept_backbones = false
        coordinators = ['{PRINT}']
        recipes = ['{"0" * 64}']
        [budget]
        epsilon = 4
        delta = 1e-6
        period_days = 365
    """
    assert policy(tmp_path, text) == SitePolicy(
        Budget(4.0, 1e-6, 365.0),
        only_sealed=True,
        clear_metrics=True,
        suppress_below=7,
        least_examples=20,
        least_sites=3,
        accept_backbones=False,
        coordinators=("ab" * 32,),
        recipes=("0" * 64,),
    )
    assert policy(tmp_path, "") == STRICT


def test_without_a_policy_file_the_strict_rules_hold_and_that_is_known(tmp_path: Path) -> None:
    site(tmp_path, "name = 'n'")
    made = read_site(tmp_path)
    assert (made.policy, made.has_policy) == (STRICT, False)
    (tmp_path / "policy.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no policy file"):
        read_site(tmp_path)


def test_a_folder_that_is_no_site_says_how_to_make_one(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "none", "no state folder"), (tmp_path, "no site file")):
        with pytest.raises(ConfigError, match=said) as error:
            read_site(folder)
        assert "fedtl site init" in error.value.next_step


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"name = 'n'\nname = 'm'"])
def test_bytes_that_are_no_toml_are_refused(tmp_path: Path, text: bytes) -> None:
    for name in ("site.toml", "policy.toml"):
        (tmp_path / "site.toml").write_text("name = 'n'")
        (tmp_path / name).write_bytes(text)
        with pytest.raises(ConfigError, match="not readable TOML"):
            read_site(tmp_path)


def test_relative_paths_start_at_the_state_folder(tmp_path: Path) -> None:
    text = "name = 'n'\n[data]\nsource = '../images/'\n[server]\nroot_certificates = './ca.pem'"
    read = site(tmp_path, text)
    assert read.data.source == str(tmp_path.resolve().parent / "images")
    assert read.server.root_certificates == str(tmp_path.resolve() / "ca.pem")
