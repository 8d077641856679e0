"""The command line of the job: one pydantic model, from which parsing, messages and ``--help`` are made.

RELION composes ``--o DIR [--in_parts F] [--in_3dref F] [--in_mask F] [--LABEL VALUE]... --j N [other arguments]
[--pipeline_control DIR]`` and quotes nothing, so a blank in a path arrives as two words, and a parameter that was
left empty arrives as a bare label. argparse is not used: it abbreviates options, takes negative numbers for
options and explains itself in the plural.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from gem_plugin.config import ReconstructionConfig
from gem_plugin.errors import OptionError

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# Names that RELION's own programs give to the same things.
_SYNONYMS = {
    "i": "in_parts",
    "ref": "in_3dref",
    "mask": "in_mask",
    "solvent_mask": "in_mask",
    "random_seed": "seed",
    "first": "max_particles",
    "scratch_dir": "scratch",
}
# What 0 means for these settings; the word is shown in run.out and may be typed too.
_WORDS_FOR_ZERO = {
    "n_gaussians": "auto",
    "steps": "auto",
    "maxres": "auto",
    "particle_diameter": "auto",
    "noise_control": "off",
    "adhoc_bfac": "fitted",
    "locres_radius": "auto",
    "class": "all",
    "max_particles": "all",
}
_GPU_ENGINES = ("gpu", "cuda", "cupy")  # that people call the engine cuda
_REFUSED_INPUTS = {
    "in_movies": "Input movies",
    "in_mics": "Input micrographs",
    "in_coords": "Input coordinates",
}


class JobOptions(ReconstructionConfig):
    """All that can be said on the command line: what RELION passes, then the settings of the reconstruction."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    output: Annotated[
        Path | None,
        Field(alias="o", description="job directory for all results, e.g. External/job012/; made if it is not there"),
    ] = None
    in_parts: Annotated[
        Path | None,
        Field(
            description="particles of a finished refinement: Refine3D/job011/run_data.star, an optimiser.star, a .cs"
        ),
    ] = None
    in_3dref: Annotated[
        Path | None, Field(description="map in the particles' frame; checks hand, sign and greyscale, nothing else")
    ] = None
    in_mask: Annotated[
        Path | None, Field(description="soft solvent mask, 0 to 1, in which maps are compared; made if not given")
    ] = None
    n_threads: Annotated[int, Field(alias="j", ge=1, le=1024, description="processor threads to use")] = 1
    pipeline_control: Annotated[
        Path | None, Field(description="RELION adds it to some commands; accepted and not needed")
    ] = None
    restart: Annotated[
        bool, Field(description="begin anew instead of continuing what an earlier run in this directory had done")
    ] = False
    verbose: Annotated[
        bool, Field(description="report progress more often, and show where in the program an error arose")
    ] = False

    @property
    def directory(self) -> Path:
        """The job directory.

        Raises
        ------
        OptionError
            If ``--o`` was not given.
        """
        if self.output is None:
            raise OptionError("--o is missing: name the directory for the results, e.g. --o External/job012/")
        return self.output

    @property
    def particle_table(self) -> Path:
        """The particle table.

        Raises
        ------
        OptionError
            If ``--in_parts`` was not given.
        """
        if self.in_parts is None:
            raise OptionError(
                "--in_parts is missing: choose the particles of a finished refinement "
                "(run_data.star of a Refine3D job) in 'Input particles'"
            )
        return self.in_parts

    def reconstruction_config(self) -> ReconstructionConfig:
        """Return the settings that the science takes, without those of the job."""
        return ReconstructionConfig(**{name: getattr(self, name) for name in ReconstructionConfig.model_fields})

    def effective_settings(self) -> dict[str, str | int | float | bool | None]:
        """Return every option by its name on the command line with its value, defaults included."""
        values = self.model_dump(mode="json", by_alias=True)
        return {name: values[name] for name in fields_by_option()}


def fields_by_option() -> dict[str, FieldInfo]:
    """Return the model's fields by their names on the command line, those that RELION passes first."""
    own = [name for name in JobOptions.model_fields if name not in ReconstructionConfig.model_fields]
    ordered = [*own, *ReconstructionConfig.model_fields]
    return {JobOptions.model_fields[name].alias or name: JobOptions.model_fields[name] for name in ordered}


def parse_command_line(argv: Sequence[str]) -> JobOptions:
    """Turn the words of the command line into options.

    Options are ``--name value`` or ``--name=value``; a switch may stand bare or be followed by yes, no, true or false.

    Raises
    ------
    OptionError
        At the first word that is wrong, naming the option, the value, and what is allowed.
    """
    fields = fields_by_option()
    given: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        name, value = _option_name(word, previous=given)
        if value is None and words and not _is_option(words[0]):
            value = words.pop(0)
        if name in _REFUSED_INPUTS:
            raise OptionError(
                f"--{name} {value or ''}".rstrip() + ": gem-external reconstructs from refined particles; leave "
                f"'{_REFUSED_INPUTS[name]}' empty and choose a run_data.star as 'Input particles' (--in_parts)"
            )
        name = _SYNONYMS.get(name, name)
        if name not in fields:
            raise OptionError(_unknown_option(name, value, list(fields)))
        if name in given:
            raise OptionError(f"--{name} is given twice, as '{given[name]}' and as '{value or ''}': give it once")
        if value is not None and value.lower() == _WORDS_FOR_ZERO.get(name):
            value = "0"
        given[name] = _checked(name, fields[name], value)
    return JobOptions.model_validate(given)


def find_output_directory(argv: Sequence[str]) -> Path | None:
    """Return what follows ``--o``, without looking at anything else; None if it is not there.

    For leaving an exit marker when the command line as a whole cannot be understood.
    """
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word.startswith("--o=") and len(word) > 4:
            return Path(word[4:])
        if word == "--o" and following and not _is_option(following):
            return Path(following)
    return None


def allowed_values(field: FieldInfo) -> str:
    """Say in words which values the field takes: type, unit, bounds or choices."""
    kind = _value_type(field)
    if kind is bool:
        return "yes or no"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if kind is Path:
        return "a path"
    if kind is str:
        return _described(field)
    lowest, highest = _bounds(field)
    noun = "a whole number" if kind is int else "a number"
    unit = _unit(field)
    return f"{noun} from {lowest:.15g} to {highest:.15g}" + (f" {unit}" if unit else "")


def in_words(name: str, value: str | int | float | bool | None) -> str:
    """Return an option's value as a person reads it: ``auto`` and ``all`` for the zeros that mean that."""
    if value is None:
        return "(not given)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _WORDS_FOR_ZERO.get(name, "0") if value == 0 else str(value)


def help_text(usage: str) -> str:
    """Return the text of ``--help``: the usage, then every option with its meaning, unit, bounds and default."""
    lines = [usage, "", "What RELION passes:"]
    for name, field in fields_by_option().items():
        if name == next(iter(ReconstructionConfig.model_fields)):
            lines += ["", "Settings (in RELION: Params, label and value):"]
        lines.append(f"  --{name}")
        lines.append(f"        {field.description}")
        default = _default_in_words(field)
        lines.append(f"        {allowed_values(field)}" + (f"; default {default}" if default else ""))
    synonyms = ", ".join(f"--{short} = --{name}" for short, name in _SYNONYMS.items())
    return "\n".join([*lines, "", f"Also understood: {synonyms}"])


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word)


def _option_name(word: str, previous: dict[str, str]) -> tuple[str, str | None]:
    """Split one word into option name and, if it holds ``=``, value; more than two leading dashes are forgiven."""
    if not word.startswith("--"):
        if _is_option(word):
            raise OptionError(f"{word}: options begin with two dashes; did you mean -{word}?")
        before = "".join(f" after --{name} {value}" for name, value in list(previous.items())[-1:])
        raise OptionError(
            f"'{word}'{before}: expected an option there, which begins with two dashes; a value with a blank in it "
            "needs quotation marks"
        )
    name, equals, value = word.lstrip("-").partition("=")
    return name, (value if equals else None)


def _unknown_option(name: str, value: str | None, known: list[str]) -> str:
    shown = f"--{name}" + (f" {value}" if value else "")
    nearest = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"did you mean --{nearest[0]} ({allowed_values(fields_by_option()[nearest[0]])})? " if nearest else ""
    return f"{shown}: there is no such option; {hint}'gem-external --help' lists all"


def _checked(name: str, field: FieldInfo, value: str | None) -> str:
    """Return the value if the field takes it, for a bare switch 'yes'."""
    kind = _value_type(field)
    if kind is bool and not value:
        return "yes"
    if not value:
        raise OptionError(f"--{name} has no value: expected {allowed_values(field)}")
    try:
        JobOptions.model_validate({name: value})
    except ValidationError as error:
        near = ""
        if get_origin(kind) is Literal:
            nearest = difflib.get_close_matches(value, [str(choice) for choice in get_args(kind)], n=1)
            near = f"; did you mean {nearest[0]}?" if nearest else ""
        if name == "engine" and value.lower() in _GPU_ENGINES:
            near = "; did you mean cuda?"
        raise OptionError(f"--{name} {value}: expected {allowed_values(field)}{near}") from error
    return value


def _value_type(field: FieldInfo) -> Any:
    """Return the type of a given value: ``Path`` for ``Path | None``."""
    if get_origin(field.annotation) is Literal:
        return field.annotation
    present = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    return present[0] if present else field.annotation


def _bounds(field: FieldInfo) -> tuple[float, float]:
    lowest = [item.ge for item in field.metadata if hasattr(item, "ge")]
    highest = [item.le for item in field.metadata if hasattr(item, "le")]
    return float(lowest[0]), float(highest[0])


def _described(field: FieldInfo) -> str:
    """Return the words with which the model describes what a text may be."""
    extra = field.json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) and "allowed" in extra else "text"


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _default_in_words(field: FieldInfo) -> str:
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return "yes" if field.default else "no"
    return f"{field.default:g}" if isinstance(field.default, float) else f"{field.default}"
