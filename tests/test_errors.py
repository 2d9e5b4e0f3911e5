"""Errors have exit codes of their own, and what the system and torch say is understood."""

import errno

import pytest
from support.shortages import SHORT

from mhvae_cli import errors
from mhvae_cli.errors import (
    DeviceError,
    InputError,
    InternalError,
    MhvaeError,
    OutputError,
    input_error,
    os_error_text,
    out_of_memory_kind,
)


def test_each_error_has_an_exit_code_of_its_own() -> None:
    kinds = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MhvaeError)
    ]
    codes = [kind.exit_code for kind in kinds if kind is not InternalError]
    assert InternalError.exit_code == MhvaeError.exit_code  # a bug
    assert sorted(codes) == [1, 2, 4, 5, 6, 7, 8]  # 3: some inputs failed
    error = OutputError("full", hint="make room")
    assert (str(error), error.hint, error.exit_code) == ("full", "make room", 7)
    assert OutputError("full").hint is None


@pytest.mark.parametrize(("kind", "memory"), [("cuda", "device"), ("cpu", "host"), ("python", "host")])
def test_a_shortage_of_memory_is_known_by_its_kind(kind: str, memory: str) -> None:
    assert out_of_memory_kind(SHORT[kind]) == memory


def test_other_errors_are_no_shortage_of_memory() -> None:
    for error in (RuntimeError("shapes differ"), ValueError("memory"), OSError(errno.ENOSPC, "full")):
        assert out_of_memory_kind(error) is None
    assert out_of_memory_kind(RuntimeError("MPS backend out of memory")) == "device"


def test_the_systems_words_begin_in_lower_case() -> None:
    assert os_error_text(OSError(errno.ENOENT, "No such file or directory")) == "no such file or directory"
    assert os_error_text(OSError("Odd")) == "odd"


def test_what_concerns_one_input_is_an_input_error() -> None:
    known = InputError("a.png: empty file")
    assert input_error(known, "a.png") is known
    assert str(input_error(MemoryError(), "a.png")) == "a.png: not enough memory for this image"
    bug = input_error(KeyError("x\ny"), "a.png")
    assert isinstance(bug, InternalError) and isinstance(bug.__cause__, KeyError)
    assert str(bug) == "a.png: internal error: KeyError: 'x\\ny'"
    for error in (SHORT["cuda"], DeviceError("gone"), OutputError("full")):
        with pytest.raises(type(error)):
            input_error(error, "a.png")
