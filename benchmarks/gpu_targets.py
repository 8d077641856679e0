"""What benchmarks/gpu.py is measured against on an H200, and what a result file says of it."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure to beat."""

    what: str
    unit: str
    limit: float
    at_least: bool  # else at most
    measured: Callable[[Json], float | None]


def _row(rows: list[Json], **wanted: Any) -> list[Json]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _accumulation(sections: Json) -> float | None:
    rows = _row(sections["accumulate"]["cases"], box_size_px=256)
    return max((row["particles_per_second"] for row in rows), default=None)


def _step(sections: Json) -> float | None:
    rows = _row(sections["step"]["cases"], box=256, n_gaussians=50_000)
    return rows[0]["median_ms"] if rows else None


def _images(sections: Json) -> float | None:
    rows = _row(sections["images"]["from_pinned_memory"], box_size_px=256, n_gaussians=30_000)
    return max((row["images_per_second"] for row in rows), default=None)


def _job(sections: Json) -> float | None:
    job = sections["job"]
    return statistics.median(run["seconds"] for run in job["warm"]) if job.get("warm") else None


def _memory(box: int) -> Callable[[Json], float | None]:
    def most(sections: Json) -> float | None:
        held = [row["peak_gb"] for row in _row(sections["accumulate"]["cases"], box_size_px=box)]
        held += [row["peak_gb"] for row in _row(sections["step"]["cases"], box=box)]
        return max((one for one in held if one is not None), default=None)

    return most


TARGETS = (
    Target("b and T together, box 256, from host memory", "particles/s", 20_000, True, _accumulation),
    Target("a collapsed step, box 256, 50,000 Gaussians", "ms", 6, False, _step),
    Target("--fit images, box 256, 30,000 Gaussians, whole steps", "images/s", 20_000, True, _images),
    Target("a whole job of 100,000 particles, box 256, warm file cache", "s", 60, False, _job),
    Target("most GPU memory, box 256", "GB", 8, False, _memory(256)),
    Target("most GPU memory, box 512", "GB", 24, False, _memory(512)),
)


def targets(sections: Json) -> list[Json]:
    """Each target beside what was measured; None where it was not."""
    figures = {name: part["figures"] for name, part in sections.items() if part.get("figures")}
    found = []
    for target in TARGETS:
        try:
            value = target.measured(figures)
        except KeyError:  # of a section that did not run
            value = None
        sign = ">=" if target.at_least else "<="
        met = None if value is None else (value >= target.limit) == target.at_least or value == target.limit
        found.append(
            {
                "what": target.what,
                "unit": target.unit,
                "target": f"{sign} {target.limit:g}",
                "measured": value,
                "met": met,
            }
        )
    job = figures.get("job", {})
    if "cold" in job:
        limit, seconds = 1.5 * job["cold_read_seconds"] + 15, job["cold"]["seconds"]
        told = f"<= {limit:.1f}, 1.5 times a cold read of its file plus 15"
        found.append(
            {"what": "the same, cold", "unit": "s", "target": told, "measured": seconds, "met": seconds <= limit}
        )
    return found
