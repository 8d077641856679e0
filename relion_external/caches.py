"""Where libraries keep what they compile or look up, on machines where their usual places cannot be written."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import gem_plugin


def prepare_caches() -> None:
    """Give Numba, CuPy and matplotlib writable folders where they would find none; must come before they are imported.

    Numba and CuPy refuse to compile when they cannot keep the result, and matplotlib complains.
    """
    package = Path(gem_plugin.__file__).parent / "ops"
    os.environ.update(needed_folders(os.environ, package=package))


def needed_folders(environment: Mapping[str, str], *, package: Path) -> dict[str, str]:
    """Return the environment variables that have to be set, with folders that can be made.

    Parameters
    ----------
    environment
        Environment variables; one that is set already is left alone.
    package
        Folder of the modules that Numba compiles; Numba prefers the ``__pycache__`` in it.
    """
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    caches = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    settings = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    usual = {
        "NUMBA_CACHE_DIR": (package / "__pycache__", caches / "numba"),
        "MPLCONFIGDIR": (settings / "matplotlib",),
        "CUPY_CACHE_DIR": (home / ".cupy",),
    }
    missing = [
        name
        for name, places in usual.items()
        if not environment.get(name) and not any(_is_writable(place) for place in places)
    ]
    if not missing:
        return {}
    folder = _private_folder()
    return {name: str(folder / name.partition("_")[0].lower()) for name in missing}


def _is_writable(folder: Path) -> bool:
    """Whether files can be written in the folder, or it can be made."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _private_folder() -> Path:
    """Return a folder under the temporary one that nobody else can write: compiled code is run from it."""
    folder = Path(tempfile.gettempdir()) / f"gem_plugin_{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not folder.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass  # a file of somebody else under that name
    return Path(tempfile.mkdtemp(prefix="gem_plugin_"))
