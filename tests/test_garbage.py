"""The cycle collector is left alone in a block, and never for good."""

from __future__ import annotations

import gc

import pytest

from fedtl.garbage import undisturbed


def test_collections_wait_for_the_end_of_the_block() -> None:
    assert gc.isenabled()
    with undisturbed():
        assert not gc.isenabled()
        with undisturbed():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_switches_them_on_again() -> None:
    with pytest.raises(KeyboardInterrupt), undisturbed():
        raise KeyboardInterrupt
    assert gc.isenabled()


def test_who_switched_them_off_finds_them_off() -> None:
    gc.disable()
    try:
        with undisturbed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
