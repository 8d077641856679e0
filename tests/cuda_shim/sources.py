"""Every kernel source that the host code can ask for, found by name so that a new one cannot be forgotten."""

import importlib
import pkgutil

import gem_plugin.ops
from gem_plugin.ops.cuda_source import KernelSource


def sources_of_modules() -> dict[str, tuple[KernelSource, ...]]:
    """`SOURCES` of each gem_plugin.ops.cuda_*: all variants that its host code starts kernels of."""
    names = [module.name for module in pkgutil.iter_modules(gem_plugin.ops.__path__)]
    hosts = [name for name in names if name.startswith("cuda_") and name != "cuda_source"]
    return {name: importlib.import_module(f"gem_plugin.ops.{name}").SOURCES for name in hosts}


def all_sources() -> list[KernelSource]:
    """All of them, each once."""
    return list(dict.fromkeys(source for sources in sources_of_modules().values() for source in sources))


def variant_name(source: KernelSource) -> str:
    """A source as a word for a test's name; the variants of a file differ in the last four letters."""
    return f"{source.files[-1].removesuffix('.cu')}-{dict(source.defines).get('REAL', '')}-{source.digest[:4]}"
