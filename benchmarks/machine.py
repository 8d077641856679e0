"""Result files: figures as JSON, with the machine that they were measured on."""

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
CHECKOUT = RESULTS.parent.parent
CODE = ("gem_plugin", "relion_external", "cuda", "benchmarks/*.py")
PACKAGES = ("numpy", "torch", "numba", "finufft")


def describe_machine() -> dict[str, Any]:
    """Name what the speed of a run depends on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _package_version(name) for name in PACKAGES},
    }


def describe_version() -> str:
    """Name the commit that is measured; it ends in -dirty if the code of the checkout differs from it.

    Results and pages do not count: a long run writes them as it goes.
    """

    def git(*command: str) -> str:
        try:
            return subprocess.run(["git", *command], cwd=CHECKOUT, capture_output=True, text=True).stdout.strip()
        except FileNotFoundError:  # a bare machine
            return ""

    commit = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", *CODE)
    return (f"{commit}-dirty" if changed else commit) or "unknown"


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def write_results(name: str, figures: dict[str, Any], path: Path | None = None) -> Path:
    """Write ``results/<name>.json``, or another file, and return its path."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"benchmark": name, "date": time.strftime("%Y-%m-%d"), "commit": describe_version()}
    content = portable({**about, "machine": describe_machine(), **figures})
    part = path.with_suffix(".part")
    part.write_text(to_json(content) + "\n")
    os.replace(part, path)
    return path


def to_json(content: dict[str, Any]) -> str:
    """Indented, but with one line for each entry of a list: a long table stays readable and its changes too."""
    lists: list[str] = []

    def keep(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: keep(item) for key, item in value.items()}
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            rows = ",\n".join(f"    {json.dumps(item, allow_nan=False)}" for item in value)
            lists.append(f"[\n{rows}\n  ]")
            return f"@list {len(lists) - 1}@"
        return value

    text = json.dumps(keep(content), indent=2, allow_nan=False)
    for i, rows in enumerate(lists):
        text = text.replace(f'"@list {i}@"', rows)
    return text


def portable(value: Any) -> Any:
    """Four digits; what JSON does not know: nan (a curve that does not cross) as null, infinity as a word."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(f"{value:.4g}") if math.isfinite(value) else "infinity"
    return value
