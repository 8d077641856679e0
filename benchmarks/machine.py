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

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "torch", "numba", "finufft")


def describe_machine() -> dict[str, Any]:
    """Name what the speed of a run depends on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def describe_version() -> str:
    """Name the commit that was measured; it ends in -dirty if files of the checkout differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    said = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def write_results(name: str, figures: dict[str, Any]) -> Path:
    """Write ``results/<name>.json`` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    about = {"benchmark": name, "date": time.strftime("%Y-%m-%d"), "commit": describe_version()}
    content = {**about, "machine": describe_machine(), **figures}
    path.write_text(json.dumps(_portable(content), indent=2, allow_nan=False) + "\n")
    return path


def _portable(value: Any) -> Any:
    """Four digits; what JSON does not know: nan (a curve that does not cross) as null, infinity as a word."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(f"{value:.4g}") if math.isfinite(value) else "infinity"
    return value
