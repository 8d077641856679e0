"""Build, check and time everything that runs on a GPU, in one call of less than eight minutes.

``PYTHONPATH=. python benchmarks/gpu.py`` writes ``benchmarks/results/<card>.json`` after every section, so that what
was measured before an end is kept. A section that fails leaves its traceback there, and the next one runs. It needs
torch, CuPy, Numba, NumPy and SciPy, and pytest for the tests; only the whole job needs all packages of gem_plugin.

Every time is a median of repeats after a warm-up, between events on the GPU's stream. What a section is, is said where
it is: gpu_machine.py, gpu_check.py, gpu_accumulate.py, gpu_step.py, gpu_images.py, gpu_job.py. ``--dry`` runs all of it
with tiny sizes on the CPU, where g++ stands in for a GPU: its times mean nothing.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout, not an installed version

import gpu_stand_ins
from gpu_targets import targets
from machine import RESULTS, describe_version, write_results

NEEDS = {"accumulate": ("environment", "ceilings"), "step": ("ceilings",)}  # measured with them, for the floors
DRY = "dry"
Json = dict[str, Any]


def sections() -> dict[str, Callable[[Any, Json], Json]]:
    """What is measured, in its order; each is given what was found before it."""
    import gpu_accumulate
    import gpu_check
    import gpu_images
    import gpu_job
    import gpu_machine
    import gpu_step

    def accumulate(session: Any, found: Json) -> Json:
        card = found["environment"]["figures"].get("card", {"multiprocessors": 1})
        clock = gpu_machine.clock_ghz(found["environment"]["figures"].get("nvidia_smi", {}))
        cycles = card["multiprocessors"] * clock * 1e9
        return gpu_accumulate.accumulate(session, found["ceilings"]["figures"], cycles)

    return {
        "environment": lambda session, found: gpu_machine.environment(session),
        "compile": lambda session, found: gpu_machine.compile_all(session),
        "check": lambda session, found: gpu_check.compare_with_cpu(session),
        "ceilings": lambda session, found: gpu_machine.ceilings(session),
        "accumulate": accumulate,
        "step": lambda session, found: gpu_step.collapsed_steps(session, found["ceilings"]["figures"]),
        "images": lambda session, found: gpu_images.image_steps(session),
        "tests": lambda session, found: gpu_check.run_tests(session),
        "job": lambda session, found: gpu_job.whole_job(session),
        "sanitizer": lambda session, found: gpu_check.sanitize(session),
    }


SECTIONS = ("environment", "compile", "check", "ceilings", "accumulate", "step", "images", "tests", "job", "sanitizer")


def run_section(name: str, session: Any, found: Json) -> Json:
    """Measure one section; whatever happens, say what did."""
    begun = time.monotonic()
    session.begin_section()
    result: Json = {"commit": describe_version(), "date": time.strftime("%Y-%m-%d")}
    if session.seconds_left <= 0:
        return {**result, "outcome": "skipped", "why": "no time was left"}
    try:
        session.figures.update(sections()[name](session, found))
        result["outcome"] = "failed" if session.failures else "done"
        if session.failures:
            result["why"] = "; ".join(failure.splitlines()[0] for failure in session.failures)
    except gpu_stand_ins.NotInstalledError as error:
        result.update(outcome="skipped", why=str(error))
    except Exception as error:  # one failure must not cost the others' figures
        result.update(outcome="failed", why=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
    result.update(seconds=time.monotonic() - begun, left_out=session.left_out, failures=session.failures)
    return {**result, "figures": session.figures}


def chosen(only: Sequence[str]) -> list[str]:
    """The sections to run, with those that they need, in their order."""
    wanted = set(only or SECTIONS)
    wanted.update(needed for name in list(wanted) for needed in NEEDS.get(name, ()))
    return [name for name in SECTIONS if name in wanted]


def card_name(is_dry: bool) -> str:
    """The card as a file's name."""
    import torch

    return DRY if is_dry else "-".join(torch.cuda.get_device_name(0).lower().split())


@contextlib.contextmanager
def session_of(arguments: argparse.Namespace) -> Iterator[Any]:
    """The device, and a folder for files of the kernels and of synthetic particles."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch, contextlib.ExitStack() as stack:
        # so that all kernels are compiled anew; before CuPy is imported, which reads it
        if not arguments.dry:
            os.environ["CUPY_CACHE_DIR"] = str(Path(scratch) / "kernels")
        gpu_stand_ins.install()
        import torch
        from gpu_session import Session, stand_in_for_a_gpu

        if arguments.dry:
            stack.enter_context(stand_in_for_a_gpu())
        elif not torch.cuda.is_available():
            raise SystemExit("torch finds no GPU; --dry runs everything with tiny sizes without one")
        device = torch.device("cpu") if arguments.dry else torch.device("cuda", 0)
        yield Session(device, "cuda:0", arguments.dry, begun + arguments.seconds, Path(scratch), arguments.particles)


def measure(arguments: argparse.Namespace) -> bool:
    """Run the sections; return whether none failed."""
    with session_of(arguments) as session:
        card = card_name(arguments.dry)
        path = arguments.out / f"{card}.json"
        found: Json = {}
        if arguments.only and path.exists():  # the other sections stay; each names its commit
            found = json.loads(path.read_text()).get("sections", {})
        for name in chosen(arguments.only):
            found[name] = run_section(name, session, found)
            part = found[name]
            print(f"{name}: {part['outcome']} {part.get('why', '')} ({part.get('seconds', 0):.1f} s)", flush=True)
            figures = {"command": " ".join(["python benchmarks/gpu.py", *arguments.words]), "card": card}
            ordered = {name: found[name] for name in SECTIONS if name in found}
            write_results("gpu", {**figures, "targets": targets(ordered), "sections": ordered}, path)
    for target in targets(found):
        print(f"{target['what']}: {target['measured']} {target['unit']}, target {target['target']}")
    print(f"written: {path}")
    return all(part["outcome"] != "failed" for part in found.values())


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where <card>.json is written")
    parser.add_argument("--only", action="append", choices=SECTIONS, default=[], help="this section; may be repeated")
    parser.add_argument("--seconds", type=float, default=470.0, help="what does not fit into these is left out (470)")
    parser.add_argument("--particles", type=int, default=100_000, help="of the whole job (100000)")
    parser.add_argument("--scratch", type=Path, default=None, help="a local disk with room for the job's stack, 13 GB")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, without a GPU: does the script work?")
    arguments = parser.parse_args(words)
    folders = {"--out", "--scratch"}  # of this machine, and no part of what was measured
    given = list(sys.argv[1:] if words is None else words)
    named = [i for i, word in enumerate(given) if word in folders]
    arguments.words = [word for i, word in enumerate(given) if i not in named and i - 1 not in named]
    return 0 if measure(arguments) else 1


if __name__ == "__main__":
    raise SystemExit(main())
