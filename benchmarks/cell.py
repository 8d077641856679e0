"""One comparison: the same particles through relion_reconstruct and through our job, both scored, in one run."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grid import Cell
from images import ImageShop
from machine import describe_version
from molecules import BY_NAME
from our_job import JobResult, run_job
from reference import Reference
from relion_baseline import Baseline, reconstruct
from resolution import judge, post_process
from score import Volume, load_map, score_against

RELION, OURS, MODEL_FREE = "relion_reconstruct", "ours", "ours, model-free"
TARGETS = {  # mean FSC that ours must reach, and our wall time over RELION's
    Cell("30S", "exact", 0.015, 7).name: (0.81, None),
    Cell("cxcr4", "exact", 0.015, 7).name: (0.91, 15.0),
}


def run_cell(cell: Cell, shop: ImageShop, workdir: Path, n_threads: int, *, is_alone: bool, keep_maps: bool) -> Any:
    """Run both programs on a cell's particles and return the figures, ready for JSON.

    `is_alone` says that nothing else runs beside it, so that wall times may be judged.
    """
    started = time.perf_counter()
    version = describe_version()
    molecule, directory = BY_NAME[cell.molecule], workdir / "cells" / cell.name
    shutil.rmtree(directory, ignore_errors=True)
    try:
        table = shop.make_project(cell, directory)
        baseline = reconstruct(directory, table, directory, symmetry=molecule.symmetry)
        options = () if cell.fit == "collapsed" else ("--fit", cell.fit)
        job = run_job(directory, table, n_threads=n_threads, symmetry=molecule.symmetry, options=options)
        reference, mask = shop.reference(cell), shop.scoring_mask(cell)
        figures = compare(baseline, job, reference, mask) | {"resolution": judge(job, reference).figures()}
        if cell.name in TARGETS:
            figures["postprocess"] = post_process(job).figures()
        figures["verdicts"] = verdicts(cell, figures, is_alone)
        figures["bands"] = band_table(job, reference)
    finally:
        for stack in directory.glob("*.mrcs"):
            stack.unlink()
        if not keep_maps:
            shutil.rmtree(directory, ignore_errors=True)
    about = {"commit": version, "date": time.strftime("%Y-%m-%d"), "threads": n_threads, "is_alone": is_alone}
    return about | {"cell_seconds": time.perf_counter() - started} | figures


def compare(baseline: Baseline, job: JobResult, reference: Reference, mask: Volume) -> dict[str, Any]:
    """Score both programs' maps against the reference under one mask."""
    pairs = {
        RELION: (baseline.half1, baseline.half2),
        MODEL_FREE: job.model_free_half_maps,
        OURS: job.gaussian_half_maps,
    }
    pixel_size = reference.pixel_size_in_angstroms
    maps = {name: tuple(load_map(path)[0] for path in pair) for name, pair in pairs.items()}
    scores = {
        name: asdict(score_against(reference.fsc, half1, half2, mask, pixel_size))
        for name, (half1, half2) in maps.items()
    }
    curves = {name: reference.fsc((maps[name][0] + maps[name][1]) / 2, mask).tolist() for name in (RELION, OURS)}
    ours, theirs = (scores[name]["mean_fsc_to_truth"] for name in (OURS, RELION))
    return {
        "scores": scores,
        "share_closed": share_closed(ours, theirs),
        "seconds": {RELION: baseline.wall_seconds, OURS: job.wall_seconds},
        "statement": job.statement,
        "warnings": job.warnings,
        "choices": job.choices,
        "reference": {"n_images": reference.n_images, "last_shell": len(curves[OURS]) - 1},
        "fsc_to_truth": curves,
    }


def share_closed(ours: float, theirs: float) -> float:
    """Which share of RELION's distance to a perfect score ours has closed; negative if ours is worse."""
    return (ours - theirs) / (1 - theirs)


def verdicts(cell: Cell, figures: dict[str, Any], is_alone: bool) -> dict[str, bool]:
    """Judge the cells for which targets are set; empty for all others."""
    if cell.name not in TARGETS:
        return {}
    target, largest_ratio = TARGETS[cell.name]
    found = {
        f"mean FSC at least {target}": figures["scores"][OURS]["mean_fsc_to_truth"] >= target,
        "the printed resolution is true": bool(figures["resolution"]["is_true"]),
        "PostProcess agrees": bool(figures["postprocess"]["agrees"]),
    }
    if largest_ratio is not None and is_alone:
        ratio = figures["seconds"][OURS] / figures["seconds"][RELION]
        found[f"at most {largest_ratio:.0f} times RELION's time"] = ratio <= largest_ratio
    return found


def band_table(job: JobResult, reference: Reference) -> dict[str, list[Any]]:
    """The job's own curve beside the correlation that its map really has, both in its bands and under its mask."""
    mask = load_map(job.directory / "gem_mask.mrc")[0]
    half1, half2 = (load_map(path)[0] for path in job.gaussian_half_maps)
    measured = reference.band_correlation((half1 + half2) / 2, mask, job.bands)
    return {"shells": [list(band) for band in job.bands], **job.curve, "fsc_to_truth": measured.tolist()}


def summary(cell: Cell, figures: dict[str, Any]) -> str:
    """One line for people."""
    scores, seconds = figures["scores"], figures["seconds"]
    ours, theirs = (scores[name]["mean_fsc_to_truth"] for name in (OURS, RELION))
    missed = "".join(f"; MISSED: {name}" for name, reached in figures["verdicts"].items() if not reached)
    warned = "".join(f"\n    warning: {text}" for text in figures["warnings"])
    return (
        f"{cell}: mean FSC {theirs:.4f} RELION, {ours:.4f} ours ({figures['share_closed']:+.0%} of the rest), "
        f"{seconds[RELION]:.0f} + {seconds[OURS]:.0f} s, {figures['cell_seconds']:.0f} s in all{missed}{warned}"
    )
