"""Write the counts in docs/reliability.md from results/faults.json and results/soak.json alone.

``python benchmarks/reliability_page.py`` runs nothing. The text around the counts is written by hand and stays.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: written by benchmarks/reliability_page.py -->\n", "<!-- end of counts -->\n"
CONTINUED = ", continued from a checkpoint"
Json = dict[str, Any]


def counts_of_faults(figures: Json) -> str:
    """A table: each fault, how often it was met, how the runs ended, how many went on from a checkpoint."""
    lines = ["| fault | runs | how they ended | then went on from a checkpoint |", "|---|---|---|---|"]
    for fault, number in figures["cases"].items():
        ends: Counter[str] = Counter()
        for end, count in figures["ends"].items():
            kind, _, how = end.partition(": ")
            if kind == fault:
                ends[how.replace("RELION_JOB_EXIT_", "")] += count
        ended = "; ".join(f"{count} with {how}" for how, count in sorted(ends.items()))
        lines.append(f"| {fault} | {number} | {ended} | {figures['ends'].get(fault + CONTINUED, 0)} |")
    return "\n".join(lines)


def counts_of_soak(figures: Json) -> str:
    """What many jobs left and what grew, in a sentence each."""
    growth = ", ".join(f"{what.replace('_', ' ')} {value:+.3g}" for what, value in figures["growth_per_job"].items())
    ended = "; ".join(f"{how}: {count}" for how, count in figures["jobs"].items())
    left = ", ".join(figures["left_behind"]) or "nothing"
    return f"{ended}. Growth a job: {growth}. Left behind: {left}."


def section(faults: Json, soak: Json) -> str:
    """The counts with their commands, machines and commits."""

    def said(figures: Json) -> str:
        return f"`{figures['command']}`, {figures['date']} at commit {figures['commit']}"

    defects = [*faults["defects"], *soak["defects"]]
    return f"""{said(faults)}: {sum(faults["cases"].values())} faults in jobs of some seconds,
which keep a checkpoint after each step of a fit. After most of them the same command was given again, without a fault:
marker and results were then compared with those of an undisturbed run, and the directory with what belongs there.
A run that is killed before it has begun leaves no marker, one that is killed after its success keeps that.

{counts_of_faults(faults)}

{said(soak)}: {counts_of_soak(soak)}

**Defects found: {len(defects)}.**
""" + "".join(f"* {defect}\n" for defect in defects)


def main() -> None:
    faults, soak = (json.loads((HERE / "results" / f"{name}.json").read_text()) for name in ("faults", "soak"))
    text, found = re.subn(
        f"(?s){re.escape(BEGIN)}.*{re.escape(END)}",
        lambda _: f"{BEGIN}\n{section(faults, soak)}\n{END}",
        PAGE.read_text(),
    )
    if found != 1:
        raise SystemExit(f"{PAGE} has no place for the counts, between {BEGIN.strip()} and {END.strip()}")
    PAGE.write_text(text)
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
