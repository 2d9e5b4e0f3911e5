"""What -r finds: links followed once, loops cut, and nothing passed over without a word."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pictures import picture
from support.run_folders import rows

Mhvae = Callable[..., Any]
ALL = ("segment", "scans", "-r", "-o", "masks", "--dry-run")


@pytest.fixture
def scans(here: Path) -> Path:
    """scans/a.png and scans/day/b.png, and elsewhere/c.png beside the folder."""
    for name in ("scans/a.png", "scans/day/b.png", "elsewhere/c.png"):
        picture(here / name)
    return here / "scans"


def test_links_to_folders_are_followed_once_and_loops_are_cut(mhvae: Mhvae, scans: Path) -> None:
    (scans / "archive").symlink_to("../elsewhere")  # before day in the order of names
    (scans / "again").symlink_to("day")
    (scans / "day" / "up").symlink_to("../../scans")
    (scans.parent / "elsewhere" / "self").symlink_to(".")
    found = ["masks/a.png", "masks/day/b.png", "masks/archive/c.png"]
    ended = mhvae(*ALL)
    assert (ended.code, ended.lines, ended.stderr) == (0, found, "")
    assert mhvae("segment", "scans", "-o", "masks", "--dry-run").lines == found[:1]


def test_a_link_to_the_outputs_is_no_input(mhvae: Mhvae, scans: Path) -> None:
    picture(scans.parent / "masks" / "a.png")
    (scans / "results").symlink_to("../masks")
    assert mhvae(*ALL, "--existing", "overwrite").lines == ["masks/a.png", "masks/day/b.png"]


def forbid(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """The folder has no read permission, for root either."""
    scan = os.scandir

    def refuse(path: str = ".") -> Any:
        if os.fspath(path) == folder:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.usefixtures("three_scans")
def test_a_folder_that_cannot_be_read_is_a_row(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(Path("scans/locked/x.png"))
    forbid(monkeypatch, "scans/locked")
    ended = mhvae("segment", "scans", "-r", "-o", "m", "-j", 0)
    assert ended.code == 3 and "error: scans/locked: permission denied\n" in ended.stderr
    told = {row["input"]: (row["status"], row["error"]) for row in rows()}
    assert told.pop("scans/locked") == ("failed", "permission denied")
    assert [status for status, _ in told.values()] == ["ok"] * 3
    forbid(monkeypatch, "scans")
    ended = mhvae("segment", "scans", "-r", "-o", "n")
    assert ended.code == 4 and ended.stderr.startswith("error: scans: permission denied\n")


def test_broken_links_are_named(mhvae: Mhvae, scans: Path) -> None:
    (scans / "2021.05.03 heads").symlink_to("/gone")  # a share that is not mounted
    (scans / "day" / "z.png").symlink_to("gone.png")
    ended = mhvae(*ALL)
    assert ended.code == 3 and ended.lines == ["masks/a.png", "masks/day/b.png"]
    assert "error: scans/2021.05.03 heads: broken link" in ended.stderr
    assert "error: scans/day/z.png: broken link" in ended.stderr


def test_a_file_without_a_suffix_that_cannot_be_opened_is_named(
    mhvae: Mhvae, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be DICOM."""
    (scans / "IM-1").write_bytes(b"some bytes")
    opened = Path.open

    def refuse(path: str | Path, *args: Any, **kwargs: Any) -> Any:
        if Path(path).name == "IM-1":
            raise PermissionError(13, "Permission denied", path)
        return opened(Path(path), *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    ended = mhvae(*ALL)
    assert ended.code == 3 and "error: scans/IM-1: permission denied\n" in ended.stderr
