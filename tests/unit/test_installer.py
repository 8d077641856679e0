"""What install.sh says when it cannot go on: one line, before anything is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "cat", "dirname", "mkdir", "sed", "mktemp", "mv", "chmod")


def install(*arguments, path=None, **environment):
    """Run the installer; returns its exit code and what it wrote to standard error."""
    done = subprocess.run(
        [shutil.which("sh"), str(ROOT / "install.sh"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(path or os.environ["PATH"]), **environment},
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stderr


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with the shell's tools and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def write_program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_help_tells_every_option():
    done = subprocess.run([str(ROOT / "install.sh"), "--help"], capture_output=True, text=True, check=True)
    for option in ("--demo", "--test", "--prefix", "--cpu", "--cuda", "--torch-index", "--python"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--dmeo"], "--dmeo"),
        (["--demo", "--test"], "--demo and --test"),
        (["--cpu", "--cuda"], "--cpu and --cuda"),
        (["--prefix"], "--prefix"),
        (["--torch-index", "--cpu"], "--torch-index"),
        (["--demo", "--", "-k", "x"], "--test"),
        (["--python", "no-such-python"], "no-such-python"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(arguments, names):
    code, error = install(*arguments)
    assert code == 1
    assert error.count("\n") == 1
    assert names in error


def test_without_python_it_says_how_to_get_one(bare_path):
    code, error = install(path=bare_path)
    assert code == 1
    assert "no Python was found" in error
    assert "apt install python3" in error


def test_an_old_python_is_named_with_its_version(bare_path):
    write_program(bare_path / "python3", '[ "$1" = -V ] && echo Python 3.8.1 && exit 0\nexit 2')
    code, error = install(path=bare_path)
    assert code == 1
    assert "Python 3.8.1" in error
    assert "3.10" in error


def test_a_python_without_venv_is_told_which_package_is_missing(bare_path, tmp_path):
    write_program(bare_path / "python3", 'case "$*" in *ensurepip*) exit 1 ;; esac\nexit 0')
    code, error = install("--prefix", str(tmp_path / "here"), path=bare_path)
    assert code == 1
    assert "python3-venv" in error


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    precious = tmp_path / "lib" / "gem-plugin" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    code, error = install("--prefix", str(tmp_path))
    assert code == 1
    assert "no virtual environment" in error
    assert precious.read_text() == "years of work"


def test_a_prefix_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    code, error = install("--prefix", str(tmp_path / "file" / "here"))
    assert code == 1
    assert "--prefix" in error
