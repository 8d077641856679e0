"""What a run says about itself: versions, command, settings."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata

from gem_plugin import __version__
from gem_plugin.monitor import Monitor
from gem_plugin.reconstruction import Reconstruction
from relion_external.caches import prepare_caches
from relion_external.options import JobOptions, in_words

_PACKAGES = ("torch", "numpy", "numba", "finufft", "scipy", "starfile", "mrcfile", "pydantic")


def versions() -> dict[str, str]:
    """Return the versions of this program, Python and the packages that compute, without importing them."""
    found = {"gem_plugin": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not found"
    return found


def command_line(argv: Sequence[str]) -> str:
    """Return the command as it can be typed again."""
    return shlex.join(["gem-external", *argv])


def announce(options: JobOptions, argv: Sequence[str], monitor: Monitor) -> None:
    """Write the head of the log."""
    monitor.note(
        f"gem-external {__version__} on {platform.node()}, {available_processors()} processors, in {os.getcwd()}"
    )
    monitor.note("Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    monitor.note(f"Command: {command_line(argv)}")
    monitor.note("Settings:")
    for name, value in options.effective_settings().items():
        monitor.note(f"  --{name} {in_words(name, value)}")


def settings_record(options: JobOptions, argv: Sequence[str], reconstruction: Reconstruction) -> dict[str, object]:
    """Return the content of gem_config.json: what was asked for, what was chosen, what came out, and by what."""
    return {
        "command": command_line(argv),
        "versions": versions(),
        "options": options.effective_settings(),
        "choices": reconstruction.settings,
        "mask": reconstruction.mask_origin,
        "particles": {f"half_{half.half_set}": half.n_particles for half in reconstruction.halves},
        "is_resolution_claimed": reconstruction.curve.is_claimed,
        "resolution_in_angstroms": reconstruction.curve.resolution_in_angstroms,
        "statement": reconstruction.curve.statement,
        "warnings": list(reconstruction.warnings),
    }


def available_processors() -> int:
    """Return how many processors this process may use: fewer than the machine has under a queueing system."""
    return len(os.sched_getaffinity(0))


def within_processors(options: JobOptions) -> tuple[JobOptions, str | None]:
    """Return the options with no more threads than there are processors, and a sentence if that changed anything.

    More threads than processors only wait for each other.
    """
    available = available_processors()
    if options.n_threads <= available:
        return options, None
    processors = "1 processor is" if available == 1 else f"{available} processors are"
    note = f"Note: --j {options.n_threads}: {processors} available here, so that many threads are used"
    return options.model_copy(update={"n_threads": available}), note


def limit_threads(n_threads: int) -> None:
    """Tell the numerical libraries how many threads they may use, and where to keep files, before they are imported."""
    prepare_caches()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(n_threads)
    if "numba" not in sys.modules:  # which refuses a change once its threads run
        os.environ["NUMBA_NUM_THREADS"] = str(n_threads)
