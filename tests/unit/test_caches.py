"""Numba and matplotlib find a folder to write to, and one that nobody else can write."""

import os
from pathlib import Path

import pytest

from relion_external.caches import needed_folders


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A place where nobody, root included, can make a folder: a file is in the way."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


def test_nothing_is_set_where_the_usual_places_can_be_written(tmp_path: Path, temporary: Path, blocked: Path):
    assert needed_folders({"HOME": str(tmp_path)}, package=blocked) == {}
    assert set(needed_folders({"HOME": str(blocked)}, package=tmp_path)) == {"MPLCONFIGDIR", "CUPY_CACHE_DIR"}


def test_what_the_user_has_set_is_left_alone(temporary: Path, blocked: Path):
    chosen = {"HOME": str(blocked), "NUMBA_CACHE_DIR": "mine", "MPLCONFIGDIR": "mine", "CUPY_CACHE_DIR": "mine"}
    assert needed_folders(chosen, package=blocked) == {}


def test_a_folder_of_ones_own_is_made_and_used_again(temporary: Path, blocked: Path):
    found = needed_folders({"HOME": str(blocked)}, package=blocked)
    own = temporary / f"gem_plugin_{os.getuid()}"
    assert found == {
        "NUMBA_CACHE_DIR": str(own / "numba"),
        "MPLCONFIGDIR": str(own / "mplconfigdir"),
        "CUPY_CACHE_DIR": str(own / "cupy"),
    }
    assert own.stat().st_mode & 0o777 == 0o700
    assert needed_folders({"HOME": str(blocked)}, package=blocked) == found


@pytest.mark.parametrize("obstacle", ["open to others", "link", "file"])
def test_a_folder_that_others_may_have_made_is_not_trusted(
    tmp_path: Path, temporary: Path, blocked: Path, obstacle: str
):
    own = temporary / f"gem_plugin_{os.getuid()}"
    if obstacle == "open to others":
        own.mkdir()
        own.chmod(0o777)
    elif obstacle == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        own.symlink_to(tmp_path / "elsewhere")
    else:
        own.touch()
    fresh = Path(needed_folders({"HOME": str(blocked)}, package=blocked)["NUMBA_CACHE_DIR"]).parent
    assert fresh != own
    assert fresh.parent == temporary
    assert fresh.stat().st_mode & 0o777 == 0o700
