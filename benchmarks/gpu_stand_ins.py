"""Stand-ins for packages that gem_plugin imports and what is measured on a GPU never calls.

A machine lent for measuring often has torch, CuPy and Numba and not the packages that read STAR and MRC files. What is
imported there is an empty package; whoever does use it is told that it is not installed.
"""

import importlib.util
import sys
import types
from typing import Any

NEVER_CALLED = ("starfile", "mrcfile", "finufft", "pandas")


class NotInstalledError(Exception):
    """A package is needed that is not installed."""


def install() -> list[str]:
    """Put a stand-in where a package is missing; return the names of those that are missing."""
    missing = [name for name in NEVER_CALLED if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules[name] = _StandIn(name)
    return missing


def require(*names: str) -> None:
    """Say which of some packages are not there, or have a stand-in.

    Raises
    ------
    NotInstalledError
        If any.
    """
    missing = [name for name in names if isinstance(sys.modules.get(name), _StandIn) or not _can_be_found(name)]
    if missing:
        raise NotInstalledError(f"not installed: {', '.join(missing)}")


def _can_be_found(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


class _StandIn(types.ModuleType):
    """Any attribute is a class that cannot be called: enough for type annotations."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.util.spec_from_loader(name, loader=None)

    def __getattr__(self, attribute: str) -> type:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        package = self.__name__

        def refuse(*_: Any, **__: Any) -> Any:
            raise NotInstalledError(f"not installed: {package}, of which {attribute} is used")

        return type(attribute, (), {"__new__": refuse, "__class_getitem__": classmethod(lambda cls, item: cls)})
