"""Sections of benchmarks/gpu.py: are the answers right, do the tests of tests/gpu pass, is every access in bounds."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_session import Session

HERE = Path(__file__).resolve().parent
LONGEST_SECONDS = 150.0  # of the tests, and of each tool of the sanitizer
COMPARE = (
    "import gpu_stand_ins; gpu_stand_ins.install(); from gem_plugin.engine_check import engine_fault; "
    "fault = engine_fault('cuda:0'); print(fault); raise SystemExit(bool(fault))"
)


class WrongError(Exception):
    """The GPU computes wrongly, or a test fails."""


def compare_with_cpu(session: Session) -> dict[str, Any]:
    """The GPU's answers beside the CPU engine's."""
    from gem_plugin.engine_check import engine_fault

    fault = engine_fault(session.engine)
    if fault:
        raise WrongError(fault)
    return {"fault": None}


def run_tests(session: Session) -> dict[str, Any]:
    """`pytest tests/gpu`, none of which may be skipped for want of a GPU."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider", "--durations=5"]
    note = None
    if importlib.util.find_spec("hypothesis") is None:
        command.append("--noconftest")
        note = "hypothesis is not installed: run without tests/conftest.py"
    if session.is_dry:
        command += ["--collect-only"]
    done = _run(command, session, {"GEM_REQUIRE_GPU": "" if session.is_dry else "1"})
    figures = {"command": " ".join(command[1:]), "note": note, **done}
    if done["exit_status"] != 0 and not (session.is_dry and done["exit_status"] == 5):
        raise WrongError(f"tests/gpu: exit status {done['exit_status']}\n{done['last_lines']}")
    return figures


def sanitize(session: Session) -> dict[str, Any]:
    """The comparison with the CPU once more, every access watched by compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or session.is_dry:
        return {"note": "compute-sanitizer is not on the PATH"}
    found = {}
    for check in ("memcheck", "racecheck", "initcheck"):
        if not session.fits(check, 60):
            break
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", COMPARE]
        # each array is an allocation of its own, so that the tool sees where it ends
        found[check] = _run(command, session, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    bad = {check: done for check, done in found.items() if done["exit_status"] != 0}
    if bad:
        raise WrongError(
            "\n".join(f"{check}: {done['exit_status']}\n{done['last_lines']}" for check, done in bad.items())
        )
    return found


def _run(command: list[str], session: Session, settings: dict[str, str]) -> dict[str, Any]:
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = {**os.environ, **settings, "PYTHONPATH": path}
    limit = max(min(LONGEST_SECONDS, session.seconds_left), 5.0)
    try:
        done = subprocess.run(
            command, cwd=HERE.parent, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"exit_status": None, "last_lines": f"not finished after {limit:.0f} s"}
    return {"exit_status": done.returncode, "last_lines": (done.stdout[-2500:] + done.stderr[-800:]).strip()}
