"""The tables of docs/results.md, made of the result files alone; what was not run is shown as missing."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

Cells = Sequence[dict[str, Any]]
Json = dict[str, Any]

RELION, MODEL_FREE, OURS = "relion_reconstruct", "ours, model-free", "ours"
MISSING = "missing"
COLUMN_TITLES = {
    "exact": "Exact poses",
    "errors": "Poses with errors",
    "solvent": "A truth with solvent",
}


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (heading, *rows)]
    lines.insert(1, "|" + "---|" * len(heading))
    return "\n".join(lines) + "\n"


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Return the mean with the standard deviation between seeds, which one seed alone does not have."""
    if not values:
        return MISSING
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def crossings(values: Sequence[float | str | None]) -> str:
    """Return the mean of resolutions where a curve crosses, in Angstrom, and how many do not."""
    if not values:
        return MISSING
    never = sum(value == "infinity" for value in values)
    numbers = [float(value) for value in values if value not in (None, "infinity")]
    beyond = len(values) - never - len(numbers)
    said = [f"{statistics.fmean(numbers):.2f}"] if numbers else []
    for count, words in ((beyond, "not crossed"), (never, "never above")):
        if count:
            said.append(words if count == len(values) else f"{words} in {count} of {len(values)}")
    return ", ".join(said)


def selected(cells: Cells, **wanted: Any) -> Cells:
    """Return the cells that have those values."""
    return [cell for cell in cells if all(cell[key] == value for key, value in wanted.items())]


def of_program(cells: Cells, program: str, figure: str) -> list[Any]:
    """Return one score of one program in every cell."""
    return [cell["scores"][program][figure] for cell in cells]


def quality_row(molecule: Json, ratio: float, cells: Cells, n_seeds: int) -> list[str]:
    """Summarise one molecule at one signal-to-noise ratio over the seeds that were run."""
    name = f"{molecule['name']} ({molecule['symmetry']}, box {molecule['box_size_px']})"
    if not cells:
        return [name, f"{ratio:g}", f"0 of {n_seeds}", *[MISSING] * 8]
    judged = [cell["resolution"]["is_true"] for cell in cells if cell["resolution"]["is_true"] is not None]
    return [
        name,
        f"{ratio:g}",
        f"{len(cells)} of {n_seeds}",
        mean_and_spread(of_program(cells, RELION, "mean_fsc_to_truth"), 3),
        mean_and_spread(of_program(cells, MODEL_FREE, "mean_fsc_to_truth"), 3),
        f"**{mean_and_spread(of_program(cells, OURS, 'mean_fsc_to_truth'), 3)}**",
        mean_and_spread([100 * cell["share_closed"] for cell in cells], 0),
        crossings(of_program(cells, RELION, "truth_crossing")),
        crossings(of_program(cells, OURS, "truth_crossing")),
        stated(cells),
        (f"{sum(judged)} of {len(judged)}" if judged else "cannot be judged")
        + (f", {len(cells) - len(judged)} cannot be judged" if 0 < len(judged) < len(cells) else ""),
    ]


def stated(cells: Cells) -> str:
    """Return what our job stated: numbers, the end of the data, or nothing."""
    found = [cell["resolution"] for cell in cells]
    numbers = [one["printed_resolution"] for one in found if one["printed_resolution"] is not None]
    silent = sum(not one["is_claimed"] for one in found)
    to_the_end = len(found) - len(numbers) - silent
    said = [f"{statistics.fmean(numbers):.2f}"] if numbers else []
    for count, words in ((to_the_end, "end of the data"), (silent, "nothing")):
        if count:
            said.append(words if count == len(found) else f"{words} in {count} of {len(found)}")
    return ", ".join(said)


def quality_table(quality: Json, column: str) -> str:
    """Return the rows of all molecules and signal-to-noise ratios in one column of the grid."""
    heading = ["molecule", "SNR", "seeds", "RELION, mean FSC", "model-free, mean FSC", "ours, mean FSC", "closed (%)"]
    heading += ["RELION 0.5 (Å)", "ours 0.5 (Å)", "stated by ours (Å)", "statement true"]
    cells = selected(quality["cells"], column=column, fit="collapsed")
    rows = [
        quality_row(molecule, ratio, selected(cells, molecule=molecule["name"], signal_to_noise=ratio), n_seeds)
        for n_seeds in [len(quality["seeds"])]
        for molecule in quality["molecules"]
        for ratio in quality["signal_to_noise"]
    ]
    return table(heading, rows)


def fits_table(quality: Json) -> str:
    """Compare ``--fit images`` with the default on the same particles, where both were run."""
    rows = []
    for other in selected(quality["cells"], fit="images"):
        same = {key: other[key] for key in ("molecule", "column", "signal_to_noise", "seed")}
        for cell in (*selected(quality["cells"], **same, fit="collapsed"), other):
            score = cell["scores"][OURS]
            rows.append(
                [
                    f"{cell['molecule']}, {cell['column']} poses, SNR {cell['signal_to_noise']:g}, seed {cell['seed']}",
                    cell["fit"],
                    f"{score['mean_fsc_to_truth']:.4f}",
                    crossings([score["truth_crossing"]]),
                    f"{cell['seconds'][OURS]:.0f}",
                    f"{cell['threads']}",
                ]
            )
    return table(["particles", "fit", "mean FSC", "0.5 (Å)", "wall time (s)", "threads"], rows) if rows else ""


def band_points(cells: Cells) -> list[tuple[str, float, float, float]]:
    """Return (column, stated, its standard error, true) of every band that the jobs could measure and we can judge."""
    points = []
    for cell in cells:
        bands = cell["bands"]
        for row in zip(bands["c_full"], bands["standard_error"], bands["fsc_to_truth"], strict=True):
            if None not in row:
                points.append((cell["column"], *row))
    return points


def calibration_table(quality: Json) -> str:
    """Say how the stated curve lies about the true one, column by column."""
    rows = []
    for column, title in COLUMN_TITLES.items():
        points = band_points(selected(quality["cells"], column=column, fit="collapsed"))
        if not points:
            rows.append([title, "0", *[MISSING] * 3])
            continue
        differences = [c - true for _, c, _, true in points]
        too_good = sum(c - true > 2 * max(error, 0.005) for _, c, error, true in points)
        rows.append(
            [
                title,
                str(len(points)),
                f"{statistics.fmean(differences):+.3f}",
                f"{max(differences):+.3f}",
                f"{100 * too_good / len(points):.0f}",
            ]
        )
    heading = ["column", "bands", "mean of stated less true", "largest"]
    return table([*heading, "too high by more than 2 standard errors, or 0.01 (%)"], rows)


def warnings_list(cells: Cells) -> str:
    """Return what our job warned of, cell by cell."""
    lines = [
        f"* {cell['molecule']}, {cell['column']}, SNR {cell['signal_to_noise']:g}, seed {cell['seed']}: {text}"
        for cell in cells
        for text in cell["warnings"]
    ]
    return "\n".join(lines) + "\n" if lines else "None of these runs gave a warning.\n"


def commits(cells: Cells) -> str:
    """Return the commits at which cells were run, with their numbers."""
    found = sorted({cell["commit"] for cell in cells})
    return ", ".join(f"{commit} ({sum(cell['commit'] == commit for cell in cells)} cells)" for commit in found)


def scores_table(sets: dict[str, Json], seconds: Callable[[Json], tuple[float, float]]) -> str:
    """Return one row a set: RELION and ours, and their wall times."""
    rows = []
    for name, one in sets.items():
        relion, ours = (one["scores"][program] for program in (RELION, OURS))
        theirs_seconds, our_seconds = seconds(one)
        rows.append(
            [
                name,
                f"{relion['mean_fsc_to_truth']:.3f}",
                f"**{ours['mean_fsc_to_truth']:.3f}**",
                crossings([relion["truth_crossing"]]),
                crossings([ours["truth_crossing"]]),
                f"{theirs_seconds:.0f}",
                f"{our_seconds:.0f}",
                one["statement"],
            ]
        )
    heading = ["set", "RELION, mean FSC", "ours, mean FSC", "RELION 0.5 (Å)", "ours 0.5 (Å)"]
    return table([*heading, "RELION (s)", "ours (s)", "ours says"], rows)
