"""Write docs/results.md and its figures from benchmarks/results/*.json, and from nothing else.

``python benchmarks/results_page.py`` runs no measurement. What was not measured is shown as missing.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from results_figures import draw_figures
from results_tables import (
    COLUMN_TITLES,
    calibration_table,
    commits,
    fits_table,
    quality_table,
    scores_table,
    table,
    warnings_list,
)

Json = dict[str, Any]

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
NOT_RUN = "Not run: there is no result file of this form.\n"

INTRODUCTION = """# Results

This page is written by `python benchmarks/results_page.py` from the files in `benchmarks/results/`, which the commands
named here have written. *RELION* is `relion_reconstruct`, run on the same particles in the same run; *ours* is the
whole job with its defaults. Definitions are in `benchmarks/score.py`: the mean FSC is the average over all shells of
the correlation of the combined map with the truth, under one soft mask made from the truth; *0.5* is where that curve
crosses 0.5; *closed* is the share of RELION's distance to a perfect score that ours has closed,
(ours - RELION) / (1 - RELION). Values are means over seeds, ± the standard deviation between seeds where there are
several. `relion_reconstruct` runs with `--ctf --pad 2 --skip_gridding`, once a half set
(`benchmarks/relion_baseline.py`).
"""

COLUMN_TEXTS = {
    "exact": "The particle table holds the poses with which the images were made. The truth has no negative density,"
    " which suits a model that has none either.",
    "errors": "The same images, but the table's poses have independent normal errors of {pose_errors} (the whole"
    " rotation, about a random axis, so about 1.7 degrees about each; the shift along each axis). Both programs"
    " are compared with the truth that such errors blur:"
    " `relion_reconstruct` on noise-free images with fresh errors, every correlation divided by that map's own"
    " (`benchmarks/reference.py`). Shells where that map is too poor are left out, so that these numbers are means over"
    " fewer shells and do not compare with those of other columns.{shells}",
    "solvent": "Exact poses, but the truth lies in solvent: 5 % of the molecule's mean density, in an envelope blurred"
    " by 6 Å, is subtracted from the map (`benchmarks/molecules.py`). The truth is negative in places, and a model of"
    " positive Gaussians loses part of what positivity gains.",
}


def page(results: dict[str, Json], figures: list[str]) -> str:
    """Return the page; `results` maps the names of result files to their contents."""
    parts = [INTRODUCTION, quality_section(results.get("quality", {}), figures)]
    parts += [targets_section(results.get("targets", {})), real_section(results.get("real_particles", {}))]
    parts += [steps_section(results.get("steps", {})), honesty_section(results.get("honesty", {}))]
    parts += [speed_section(results.get("speed", {}))]
    return "\n".join(parts)


def about(result: Json) -> str:
    """Say when, where and at which commit a result was measured."""
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Written {result['date']} at commit {result['commit']}, on {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_gib']} GiB; Python {machine['python']}, {packages}.\n"
    )


def quality_section(quality: Json, figures: list[str]) -> str:
    """Return the grid of simulated particles."""
    command = "python benchmarks/quality.py --data DATA --jobs 2"
    head = f"## Simulated particles\n\n`{command}`\n\n"
    if "cells" not in quality:
        return head + NOT_RUN
    cells = quality["cells"]
    in_grid = [
        cell
        for cell in cells
        if cell["fit"] == "collapsed"
        and cell["n_particles"] == quality["n_particles"]
        and cell["seed"] in quality["seeds"]
    ]
    others = [cell for cell in cells if cell["fit"] != "collapsed"]
    quality = {**quality, "cells": in_grid + others}
    titles = ", ".join(f"{m['name']}: {m['title']}" for m in quality["molecules"])
    parts = [head + about(quality)]
    parts.append(
        f"{quality['n_particles']} particles in a cell, {quality['pixel_size_in_angstroms']} Å a pixel, white noise, "
        f"seeds {', '.join(map(str, quality['seeds']))}. {titles}. Symmetric molecules are run with their group in "
        f"both programs. **{len(in_grid)} of {grid_size(quality)} cells of the grid were run**, at commit "
        f"{commits(in_grid) or 'none'}.\n"
    )
    parts += [f"![{name}](figures/{name}.png)\n" for name in ("quality", "curves") if name in figures]
    for column, title in COLUMN_TITLES.items():
        text = COLUMN_TEXTS[column].format(pose_errors=quality["pose_errors"], shells=reference_shells(quality))
        parts.append(f"### {title}\n\n{text}\n\n{quality_table(quality, column)}")
    parts.append(
        "*Statement true*: what the job states is at most one band finer and two bands coarser than the 0.5 crossing of"
        " its map under its own mask, in so many of the cells that can be judged.\n"
    )
    parts.append(f"### Is the stated curve true?\n\n{calibration_table(quality)}")
    if "calibration" in figures:
        parts.append("![calibration](figures/calibration.png)\n")
    fits = fits_table(quality)
    parts.append(
        f"### The two ways of fitting\n\n{fits or 'Missing: `--fit images` was not run.' + chr(10)}"
        " Cells may have run side by side: their wall times are no benchmark.\n"
    )
    parts.append(f"### Warnings\n\n{warnings_list(cells)}")
    return "\n".join(parts)


def grid_size(quality: Json) -> int:
    """Number of cells in the whole grid, without those of other fits."""
    return math.prod(len(quality[axis]) for axis in ("molecules", "columns", "signal_to_noise", "seeds"))


def reference_shells(quality: Json) -> str:
    """Say which shells the blurred truth of each molecule is good for."""
    said = []
    for molecule in quality["molecules"]:
        cells = [c for c in quality["cells"] if c["column"] == "errors" and c["molecule"] == molecule["name"]]
        if cells:
            one = cells[0]["reference"]
            last, shells = one["last_shell"], molecule["box_size_px"] // 2
            resolution = molecule["box_size_px"] * quality["pixel_size_in_angstroms"] / last
            said.append(f"{molecule['name']} {last} of {shells} ({resolution:.1f} Å, {one['n_images']} images)")
    return f" Shells that count: {'; '.join(said)}." if said else ""


def targets_section(targets: Json) -> str:
    """Return the cells with targets, run alone."""
    head = "## Targets and wall time\n\n`python benchmarks/quality.py --data DATA --targets`\n\n"
    if "cells" not in targets:
        return head + NOT_RUN
    sets = {f"{cell['molecule']}, {cell['threads']} threads": cell for cell in targets["cells"]}
    verdicts = [
        f"* {cell['molecule']}: {name}: {'reached' if reached else '**missed**'}"
        for cell in targets["cells"]
        for name, reached in cell["verdicts"].items()
    ]
    rows = scores_table(sets, lambda cell: (cell["seconds"]["relion_reconstruct"], cell["seconds"]["ours"]))
    return f"{head}{about(targets)}\n{rows}\n" + "\n".join(verdicts) + "\n"


def real_section(real: Json) -> str:
    """Return the figures on real and really refined particles."""
    head = "## Real particles\n\n`python benchmarks/real_particles.py DATA`\n\n"
    if "projects" not in real:
        return head + NOT_RUN
    rows = scores_table(real["projects"], lambda one: (one["relion_seconds"], one["our_seconds"]))
    return f"{head}{about(real)}\n{rows}"


def steps_section(steps: Json) -> str:
    """Return how near the chosen numbers of steps come to the best."""
    head = "## The number of steps\n\n`PYTHONPATH=. python benchmarks/steps.py --data DATA`\n\n"
    if not steps:
        return head + NOT_RUN
    rows = [
        [
            one["set"],
            " and ".join(str(n) for n in one["chosen_steps"]),
            f"{one['chosen']:.4f}",
            str(one["best_step"]),
            f"{one['best']:.4f}",
            f"{one['margin']:.4f}",
            one["commit"],
        ]
        for one in steps["sets"]
    ]
    titles = ["set", "chosen by the halves", "mean FSC", "best step", "mean FSC there", "margin", "commit"]
    words = (
        "Each half chooses its steps by one fit to a quarter set. The margin is what the best step of the schedule, "
        "the same for both halves, would have been better by against the truth. Maps are means of "
        f"{steps['fits']} fits; "
        "simulated sets have exact poses and seed 7. Sets that are not listed were not run.\n"
    )
    return f"{head}{about(steps)}\n{words}\n{table(titles, rows)}\n"


def honesty_section(honesty: Json) -> str:
    """Return what was claimed where there is nothing to claim."""
    head = "## Claims on noise\n\n`python benchmarks/quality.py --data DATA --honesty`\n\n"
    if "sets" not in honesty.get("noise_and_signal", {}):
        return head + NOT_RUN
    lines = []
    ways = {"alone": "", "mask": ", with a mask round the molecule", "reference": ", with the truth as `--in_3dref`"}
    for kind, title in (("noise", "sets of pure noise"), ("signal", "sets of the same noise with signal")):
        for way, words in ways.items():
            sets = [one for one in honesty["noise_and_signal"]["sets"] if (one["kind"], one["way"]) == (kind, way)]
            claimed = sum(one["is_claimed"] for one in sets)
            lines.append(f"* {title}{words}: a resolution is claimed on {claimed} of {len(sets)}")
    faint = honesty["faint_signal"]
    lines.append(f"* a faint set: '{faint['statement']}'; {faint_verdict(faint)}")
    return f"{head}{about(honesty)}\n" + "\n".join(lines) + "\n"


def faint_verdict(faint: Json) -> str:
    """Compare a statement with the truth and with PostProcess, in words."""
    true = faint["true_resolution"]
    crossing = "does not cross 0.5" if true is None else f"crosses 0.5 at {true:.2f} Å"
    return f"its map {crossing}, PostProcess on the calibrated pair says {faint['postprocess']['resolution']:.2f} Å"


def speed_section(speed: Json) -> str:
    """Return wall times and the microbenchmarks."""
    head = "## Speed\n\n`python benchmarks/speed.py --data DATA`\n\n"
    if "repeats" not in speed.get("voxelize", {}):
        return head + NOT_RUN
    parts = [head + about(speed)]
    for paired in speed["paired"]:
        rows = [
            [name, str(len(paired["seconds"][name])), *(f"{value:.1f}" for value in three_numbers(paired, name))]
            for name in paired["seconds"]
        ]
        parts.append(
            f"Whole processes, {paired['set']}, {speed['threads']} threads for ours; relion_reconstruct makes its "
            "two halves one after the other, on one thread (it has no more; with MPI both could run at once). "
            f"Ours takes {paired['median_ratio']:.1f} times as long (median of the pairs).\n"
        )
        parts.append(table(["program", "runs", "median (s)", "least (s)", "most (s)"], rows))
    if not speed["paired"]:
        parts.append("Whole-process times: missing.\n")
    voxelize, repeats = speed["voxelize"], speed["voxelize"]["repeats"]
    rows = [
        [
            part,
            f"{voxelize['reference_seconds'][part]:.3f}",
            f"{1e3 * voxelize['cpu_seconds'][part]:.2f}",
            f"{factor:.0f}",
        ]
        for part, factor in voxelize["speedup"].items()
    ]
    parts.append(
        f"Drawing {voxelize['n_gaussians']} Gaussians in a box of {voxelize['box_size_px']} px, and its gradient, "
        f"float32, medians of {repeats['cpu']} runs ({repeats['reference']} of the reference):\n"
    )
    parts.append(table(["pass", "reference engine (s)", "CPU engine (ms)", "times faster"], rows))
    rates = speed["accumulated_particles_per_second"]
    parts.append("Accumulation of particle images, medians:\n")
    parts.append(table(["box (px)", "particles/s"], [[box, f"{rate:.0f}"] for box, rate in rates.items()]))
    return "\n".join(parts)


def three_numbers(paired: Json, name: str) -> tuple[float, float, float]:
    """Median, least and most of a program's wall times."""
    seconds = paired["seconds"][name]
    return paired["median_seconds"][name], min(seconds), max(seconds)


def write_page(results_directory: Path, docs: Path) -> Path:
    """Write the page and the figures; return the page's path."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(results_directory.glob("*.json"))}
    quality = results.get("quality", {})
    drawn = draw_figures(quality, docs / "figures") if "cells" in quality else []
    target = docs / "results.md"
    target.write_text(page(results, [path.stem for path in drawn]))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="the folder of result files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where results.md and figures/ are written")
    arguments = parser.parse_args()
    print(f"written: {write_page(arguments.results, arguments.docs)}")


if __name__ == "__main__":
    main()
