"""The text of CUDA kernels: files of the `cuda` folder put one after the other, specialised by definitions."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

_PACKAGED = Path(__file__).resolve().parents[1] / "cuda"  # where a wheel puts the folder
_CHECKED_OUT = Path(__file__).resolve().parents[2] / "cuda"


@dataclass(frozen=True)
class KernelSource:
    """What is compiled together.

    Parameters
    ----------
    files : names in the `cuda` folder, in their order: a file may use what those before it define
    defines : names and values that the files are specialised by, such as ("REAL", "float")
    """

    files: tuple[str, ...]
    defines: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def text(self) -> str:
        """Everything that a compiler needs: definitions first, so that they are part of what is hashed."""
        lines = [f"#define {name} {value}\n" for name, value in self.defines]
        return "".join(lines) + "".join(f'#line 1 "{name}"\n{_read(name)}\n' for name in self.files)

    @functools.cached_property
    def digest(self) -> str:
        """A name for the text, 16 characters."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def source_folder() -> Path:
    """The folder that holds the kernels' sources."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKED_OUT


@functools.cache
def _read(name: str) -> str:
    return (source_folder() / name).read_text(encoding="utf-8")
