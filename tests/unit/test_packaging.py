"""What is shipped: looked at in the wheel itself, not in the checkout."""

import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from the checkout, open for reading."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def run_python(code, folder):
    """Standard output of a Python that sees the checkout and nothing of this process."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_tracked_source_and_nothing_else(wheel):
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = set()
    for package in ("gem_plugin", "relion_external"):
        expected |= {p.relative_to(ROOT).as_posix() for p in (ROOT / package).rglob("*") if p.is_file()}
    expected |= {f"gem_plugin/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "cuda").rglob("*") if p.is_file()}
    expected = {name for name in expected if "__pycache__" not in name and not name.endswith((".pyc", ".nbi", ".nbc"))}
    assert shipped == expected


def test_the_cuda_sources_ship_inside_gem_plugin(wheel):
    names = wheel.namelist()
    assert "gem_plugin/cuda/README.md" in names
    assert not [name for name in names if name.startswith(("cuda/", "tests/", "benchmarks/", "docs/"))]


def test_the_cuda_folder_can_never_shadow_nvidias_cuda_package():
    assert (ROOT / "cuda" / "README.md").is_file()
    assert not list((ROOT / "cuda").rglob("*.py"))


def test_the_wheel_tells_the_packages_version_types_and_licence(wheel):
    import gem_plugin

    (metadata_name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = HeaderParser().parsestr(wheel.read(metadata_name).decode())
    assert metadata["Name"] == "gem-plugin"
    assert metadata["Version"] == gem_plugin.__version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert {"cuda12", "cuda13", "test"} <= set(metadata.get_all("Provides-Extra"))
    assert {"gem_plugin/py.typed", "relion_external/py.typed"} <= set(wheel.namelist())


def test_the_command_is_the_jobs_main(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert wheel.read(name).decode().split() == ["[console_scripts]", "gem-external", "=", "relion_external.job:main"]


def test_importing_the_packages_loads_no_heavy_library_and_touches_no_gpu(tmp_path):
    code = """
import gem_plugin, gem_plugin.errors, gem_plugin.config, gem_plugin.monitor, relion_external, relion_external.job
print(sorted({"torch", "cupy", "numba", "finufft", "matplotlib"} & set(sys.modules)))"""
    assert run_python(code, tmp_path).strip() == "[]"


def test_the_help_needs_no_heavy_library(tmp_path):
    code = """
from relion_external.job import main
code = main(["--help"])
print(code, sorted({"torch", "cupy", "numba", "finufft", "matplotlib"} & set(sys.modules)))"""
    assert run_python(code, tmp_path).splitlines()[-1] == "0 []"
