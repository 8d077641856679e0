"""Write the tables of docs/performance.md: what benchmarks/gpu.py has measured, and what memory is computed to be.

``python benchmarks/gpu_page.py`` measures nothing. The text between the tables is written by hand and stays; what was
not measured is not shown.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout, not an installed version

from gem_plugin.conventions import half_plane
from gem_plugin.device_plan import fit_bytes, gpu_bytes
from gem_plugin.device_sums import device_bytes
from gem_plugin.normal_equations import REACH_MARGIN, data_band, kernel_box
from gem_plugin.render import choose_render_box

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
BOXES = (128, 256, 384, 512)
NO_CARD = (
    "**No card has been measured yet.** There is no `benchmarks/results/<card>.json`: this page states no speed.\n"
)
Json = dict[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def memory_table(boxes: Sequence[int] = BOXES) -> str:
    """Bytes on the GPU by the program's own formulas, for data up to Nyquist."""
    rows = []
    for box in boxes:
        plane = half_plane(box, box / 2)
        grid = choose_render_box(plane)
        band = data_band(plane, grid)
        modes = float(plane.radius.max()) + REACH_MARGIN, grid, 2 * kernel_box(band, grid), band
        held = (*device_bytes(*modes), fit_bytes(grid, band), gpu_bytes(plane, grid))
        rows.append([f"{box}", f"{grid}", *(f"{one / 1e9:.1f} GB" for one in held), f"{2 * box**2 / 1e3:.0f} kB"])
    heads = ("box", "voxels of the map's grid", "b and T, adding", "b and T, transforming", "a step of the fit")
    return table([*heads, "the run's most", "an image, 16 bits"], rows)


def figures_of(result: Json) -> str:
    """All tables of one card."""
    parts = [f"### {result['card']}\n", _about(result), _targets(result["targets"])]
    sections = result["sections"]
    makers = {
        "ceilings": _ceilings,
        "compile": _compile,
        "accumulate": _accumulate,
        "step": _step,
        "images": _images,
        "job": _job,
    }
    parts += [make(sections[name]["figures"]) for name, make in makers.items() if sections.get(name, {}).get("figures")]
    parts.append(_not_done(sections))
    return "\n".join(part for part in parts if part)


def _about(result: Json) -> str:
    figures = result["sections"].get("environment", {}).get("figures", {})
    driver = figures.get("nvidia_smi", {}).get("driver_version", "unknown")
    packages = figures.get("packages", {})
    return (
        f"`{result['command']}`, {result['date']}, commit {result['commit']}, {result['machine']['cores']} cores of"
        f" {result['machine']['cpu']}; driver {driver}, torch {packages.get('torch')}, CuPy {figures.get('cupy')}.\n"
    )


def _targets(targets: list[Json]) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [(t["what"], f"{t['target']} {t['unit']}", _number(t["measured"]), words[t["met"]]) for t in targets]
    return table(("target", "limit", "measured", "met"), rows)


def _ceilings(figures: Json) -> str:
    rows = [
        (name.replace("_", " "), f"{_number(figures[name]['gb_per_second'])} GB/s")
        for name in ("copy_on_device", "pinned_to_device", "device_to_pinned")
        if name in figures
    ]
    for name in ("rfft2", "irfft2"):
        if name in figures:
            rows.append(
                (f"{name}, {figures[name]['images']}", f"{_number(figures[name]['images_per_second'])} images/s")
            )
    if "rfftn" in figures:
        rows.append((f"rfftn, {figures['rfftn']['voxels']}", f"{_number(figures['rfftn']['median_ms'])} ms"))
    rows += [(name, f"{_number(of['per_second'])}/s") for name, of in figures.get("integer_additions", {}).items()]
    rows += [(name, f"{_number(us)} microseconds") for name, us in figures.get("microseconds_a_call", {}).items()]
    return "#### Ceilings\n\n" + table(("what", "at best"), rows)


def _compile(figures: Json) -> str:
    rows = []
    for variant in figures["variants"]:
        kernels = variant.get("kernels", {})
        used = ", ".join(f"{name} {use['registers']}" for name, use in kernels.items())
        rows.append((variant["name"], _number(variant["seconds"]), used or "not known"))
    return "#### Compilation\n\n" + table(("source", "s", "registers"), rows)


def _accumulate(figures: Json) -> str:
    rows, cases = [], figures.get("cases", [])
    for case in cases:
        most = max(floor_of(case["floor_ms"]), 1e-9)
        rows.append(
            (
                str(case["box_size_px"]),
                case["pixels"],
                str(case["particles_a_call"]),
                _number(case["particles_per_second"]),
                f"{_number(100 * most / case['whole']['median_ms'])} %",
                _number(case["finish"]["median_ms"]),
                _number(case["peak_gb"]),
            )
        )
    heads = ("box", "pixels", "particles a call", "particles/s", "floor / time", "transforms at the end, ms", "GB")
    text = "#### b and T, from the host's memory\n\n" + table(heads, rows)
    if "from_a_cached_file" in figures:
        file = figures["from_a_cached_file"]
        text += (
            f"\nFrom a cached file of {file['particles']} images, box {file['box_size_px']}, 16 bits, read by"
            f" {file['reading_threads']} threads: {_number(file['particles_per_second'])} particles/s,"
            f" {file['particles_a_call']} a call, {_number(file['peak_gb'])} GB.\n"
        )
    if cases:
        best = max(cases, key=lambda case: (case["box_size_px"] == 256, case["particles_per_second"]))
        whole = {
            "whole call": {"ms": best["whole"]["median_ms"]},
            "copy to device": {"ms": best["copy_to_device"]["median_ms"]},
        }
        parts = {name: of for name, of in best["parts"].items() if name != "not_found"}
        floors = {name.replace("_", " "): f"{_number(ms)} ms" for name, ms in best["floor_ms"].items()}
        text += f"\nA call of {best['particles_a_call']} particles, box {best['box_size_px']}, {best['pixels']}:\n\n"
        text += _parts({**whole, **parts})
        text += "\nFloors: " + ", ".join(f"{name} {ms}" for name, ms in floors.items()) + ".\n"
    return text


def floor_of(floors: Json) -> float:
    """Of a whole call: the copy may run beside the rest, which is done one after the other."""
    return max(floors["copy_to_device"], sum(ms for name, ms in floors.items() if name != "copy_to_device"))


def _step(figures: Json) -> str:
    cases = {(case["box"], case["n_gaussians"]): case for case in figures.get("cases", [])}
    counts = sorted({count for _, count in cases})
    rows = []
    for box in sorted({box for box, _ in cases}):
        found = [cases.get((box, count)) for count in counts]
        floor = next(case for case in found if case)["floor_of_ffts_ms"]
        most = [case["peak_gb"] for case in found if case and case["peak_gb"] is not None]
        rows.append(
            [
                f"{box}",
                *(_number(case["median_ms"]) if case else "" for case in found),
                _number(floor),
                _number(max(most, default=None)),
            ]
        )
    heads = ["voxels on an axis", *(f"{count} Gaussians" for count in counts), "floor of the FFTs", "most GB"]
    text = "#### A step of the collapsed fit, ms\n\n" + table(heads, rows)
    if "profile" in figures:
        profile = figures["profile"]
        text += f"\nThe parts of a step, {profile['box']} voxels on an axis, {profile['n_gaussians']} Gaussians:\n\n"
        text += _profile(profile)
    return text


def _images(figures: Json) -> str:
    cases = [(case, "pinned memory") for case in figures.get("from_pinned_memory", [])]
    if "from_a_cached_file" in figures:
        cases.append((figures["from_a_cached_file"], "a file, second epoch"))
    rows = [
        (
            where,
            str(case["box_size_px"]),
            str(case["n_gaussians"]),
            str(case["images_a_step"]),
            _number(case["images_per_second"]),
            _number(case["step"]["median_ms"]),
            _number(case["peak_gb"]),
        )
        for case, where in cases
    ]
    heads = ("images from", "box", "Gaussians", "images a step", "images/s", "a step, ms", "GB")
    text = "#### A step of `--fit images`\n\n" + table(heads, rows)
    if "profile" in figures:
        text += (
            f"\nThe parts of a step of {figures['profile']['images_a_step']} images:\n\n{_profile(figures['profile'])}"
        )
    return text


def _profile(profile: Json) -> str:
    whole = {"whole step": {"ms": profile["step"]["median_ms"]}}
    return _parts({**whole, **profile["parts"], "the rest": {"ms": profile["rest_ms"]}})


def _parts(parts: Json) -> str:
    rows = [(name, _number(of["ms"]), _number(of.get("host_ms"))) for name, of in parts.items()]
    return table(("part", "ms", "the host's own ms"), rows)


def _job(figures: Json) -> str:
    if not figures.get("warm"):
        return ""
    runs = [("warm", run) for run in figures["warm"]] + [("cold", figures[key]) for key in ("cold",) if key in figures]
    text = f"#### A whole job, {figures['n_particles']} particles, box {figures['box_size_px']}\n\n"
    text += table(("file cache", "s"), [(name, _number(run["seconds"])) for name, run in runs])
    rows = [(s["stage"], s["figures"], _number(s["seconds"])) for s in figures["warm"][-1]["stages"]]
    return f"{text}\n{table(('stage', 'figures', 's'), rows)}"


def _not_done(sections: Json) -> str:
    said = []
    for name, part in sections.items():
        if part["outcome"] != "done":
            said.append(f"* {name} {part['outcome']}: {part.get('why', '')}\n")
        said += [f"* {name}: left out {what}\n" for what in part.get("left_out", [])]
    return "Not done:\n\n" + "".join(said) if said else ""


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def with_part(text: str, name: str, content: str) -> str:
    """Replace what lies between a page's marks of a name."""
    begin, end = f"<!-- {name}: written by benchmarks/gpu_page.py -->\n", f"<!-- end of {name} -->\n"
    found = re.subn(f"(?s){re.escape(begin)}.*{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", text)
    if found[1] != 1:
        raise ValueError(f"the page has no marks for {name}")
    return found[0]


def page(text: str, results: list[Json]) -> str:
    """The page with its tables written anew; `results` are the contents of the cards' files."""
    figures = "\n".join(figures_of(result) for result in results) if results else NO_CARD
    return with_part(with_part(text, "memory", memory_table()), "figures", figures)


def results_in(folder: Path) -> list[Json]:
    """Contents of the result files of cards."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [content for content in contents if content.get("benchmark") == "gpu"]


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), results_in(HERE / "results")))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
