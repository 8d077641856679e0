"""What every test shares: when a test may be skipped, and how hypothesis draws."""

import os
import shutil

import hypothesis
import pytest

hypothesis.settings.register_profile("gem", deadline=None, derandomize=True, print_blob=True, database=None)
hypothesis.settings.load_profile("gem")

RELION_PROGRAMS = ("relion_project", "relion_reconstruct", "relion_pipeliner", "relion_postprocess")


def _missing_relion() -> str:
    """Why RELION cannot judge here; empty if it can."""
    missing = [name for name in RELION_PROGRAMS if shutil.which(name) is None]
    return f"not on the PATH: {', '.join(missing)}" if missing else ""


def _missing_gpu() -> str:
    """Why the GPU engine cannot run here; empty if it can."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    try:
        return "" if cupy.cuda.runtime.getDeviceCount() > 0 else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"


REQUIREMENTS = {
    "relion": (_missing_relion, "GEM_REQUIRE_RELION"),
    "gpu": (_missing_gpu, "GEM_REQUIRE_GPU"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose judge is not there, or fail it where the environment promises that judge."""
    for marker, (find_reason, variable) in REQUIREMENTS.items():
        if item.get_closest_marker(marker) is None:
            continue
        reason = find_reason()
        if reason and os.environ.get(variable) == "1":
            pytest.fail(f"{variable}=1, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)
