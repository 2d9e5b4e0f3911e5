"""Hashes against the system's own tools."""

import subprocess
from pathlib import Path

import pytest

from mhvae_cli.errors import InputError, ModelError
from mhvae_cli.hashing import git_blob_id, seed_of, sha256_of


def test_sha256_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 5000)
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert sha256_of(path) == sha256_of(path.read_bytes()) == done.stdout.split()[0]


def test_a_file_that_cannot_be_read_is_the_callers_error(tmp_path: Path) -> None:
    for error in (InputError, ModelError):
        with pytest.raises(error, match=r"gone: no such file or directory$"):
            sha256_of(tmp_path / "gone", error=error)


def test_a_blob_is_named_as_git_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"text\n")
    done = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    assert git_blob_id(path) == done.stdout.strip()


def test_a_seed_depends_on_the_text_alone() -> None:
    assert seed_of("0/a") == int(sha256_of(b"0/a")[:16], 16)
    assert seed_of("0/a", size=6) == int(sha256_of(b"0/a")[:12], 16)
    assert len({seed_of(f"{seed}/{key}") for seed in range(10) for key in "abc"}) == 30
