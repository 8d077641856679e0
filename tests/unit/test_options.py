"""The command line: what RELION composes is understood, what is wrong is explained in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gem_plugin.config import ReconstructionConfig
from gem_plugin.errors import OptionError
from relion_external.options import (
    JobOptions,
    allowed_values,
    fields_by_option,
    find_output_directory,
    help_text,
    in_words,
    parse_command_line,
)

RELION_COMMAND = (
    "--o External/job012/ --in_parts Refine3D/job011/run_data.star --in_3dref Refine3D/job011/run_class001.mrc "
    "--in_mask MaskCreate/job006/mask.mrc --n_gaussians 5000 --verbose --steps 120 --j 4 --maxres 3.5 "
    "--pipeline_control External/job012/"
)


def complaint(line: str) -> str:
    with pytest.raises(OptionError) as caught:
        parse_command_line(line.split())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_command_as_relion_composes_it():
    options = parse_command_line(RELION_COMMAND.split())
    assert options.directory == Path("External/job012")
    assert options.particle_table == Path("Refine3D/job011/run_data.star")
    assert options.in_3dref == Path("Refine3D/job011/run_class001.mrc")
    assert options.in_mask == Path("MaskCreate/job006/mask.mrc")
    assert options.n_threads == 4
    assert options.verbose is True
    assert options.reconstruction_config() == ReconstructionConfig(n_gaussians=5000, steps=120, maxres=3.5)


def test_every_setting_reaches_the_science():
    """A value other than the default for each option: none may be lost on the way."""
    given = {"n_gaussians": 7, "steps": 3, "maxres": 4.5, "particle_diameter": 90.0, "engine": "reference"}
    given |= {
        "seed": 11,
        "sym": "D2",
        "fit": "images",
        "noise_control": 9.0,
        "adhoc_bfac": -80.0,
        "locres_radius": 12.0,
        "max_particles": 500,
        "gpu": "1:0",
        "scratch": Path("/ssd"),
    }
    given |= {"invert_contrast": True}
    words = [word for name, value in {**given, "class": 2}.items() for word in (f"--{name}", str(value))]
    config = parse_command_line(words).reconstruction_config()
    assert config.model_dump() == {**given, "class_number": 2}
    assert set(config.model_dump()) == set(ReconstructionConfig.model_fields), "a new setting: add it to this test"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--n_gausians 50", ["--n_gausians 50", "--n_gaussians", "0 to 2000000"]),
        ("--stepss 5", ["--stepss 5", "--steps"]),
        ("--particle-diameter 80", ["--particle-diameter 80", "--particle_diameter", "Angstrom"]),
        ("--gpu 0;1", ["--gpu 0;1", "auto, or numbers of GPUs such as 0 or 0,1"]),
        ("--sym tetrahedral", ["--sym tetrahedral", "one of C1, C2"]),
        ("--steps many", ["--steps many", "a whole number from 0 to 100000"]),
        ("--steps 2.5", ["--steps 2.5", "a whole number"]),
        ("--steps -1", ["--steps -1", "from 0"]),
        ("--seed=-5", ["--seed -5", "from 0 to 2147483647"]),
        ("--maxres nan", ["--maxres nan", "a number from 0 to 1000 Angstrom"]),
        ("--maxres inf", ["--maxres inf", "a number from 0 to 1000 Angstrom"]),
        ("--maxres 1e400", ["--maxres 1e400", "1000"]),
        ("--engine Cpu", ["--engine Cpu", "auto", "cpu", "reference"]),
        ("--engine gpu", ["--engine gpu", "auto, cpu, cuda, reference", "did you mean cuda?"]),
        ("--engine CUDA", ["--engine CUDA", "auto, cpu, cuda, reference", "did you mean cuda?"]),
        ("--seed auto", ["--seed auto", "a whole number"]),
        ("--verbose maybe", ["--verbose maybe", "yes or no"]),
        ("--j 0", ["--j 0", "from 1"]),
        ("--steps --j 4", ["--steps has no value", "a whole number"]),
        ("--j 4 --j 5", ["--j is given twice", "'4'", "'5'"]),
        ("--ref a.mrc --in_3dref b.mrc", ["--in_3dref is given twice"]),
        ("--in_parts My Project/run_data.star", ["'Project/run_data.star'", "--in_parts My", "quotation"]),
        ("stray", ["'stray'"]),
        ("-steps 4", ["-steps", "--steps"]),
        ("--step 4", ["--step 4", "--steps"]),
        ("--in_mics CtfFind/job003/micrographs_ctf.star", ["--in_mics", "Input micrographs", "--in_parts"]),
        ("--in_movies movies.star", ["--in_movies", "Input movies", "--in_parts"]),
        ("--in_coords picks.star", ["--in_coords", "Input coordinates", "--in_parts"]),
    ],
)
def test_a_wrong_option_is_explained(line: str, expected: list[str]):
    message = complaint(line)
    for words in expected:
        assert words in message


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("--verbose", True),
        ("--verbose yes", True),
        ("--verbose True", True),
        ("--verbose no", False),
        ("--verbose=false", False),
        ("--verbose No", False),
    ],
)
def test_a_switch_stands_bare_or_says_yes_or_no(words: str, value: bool):
    assert parse_command_line([*words.split(), "--steps", "5"]).verbose is value


def test_dashes_typed_into_the_gui_are_forgiven():
    """The GUI adds two dashes to a label that may have some already."""
    assert parse_command_line(["----steps", "5"]).steps == 5


@pytest.mark.parametrize(
    "name", ["n_gaussians", "steps", "maxres", "particle_diameter", "noise_control", "class", "max_particles"]
)
def test_the_word_for_zero_is_shown_and_understood(name: str):
    """0 is the default of each and means that the program chooses; class 0 is every class, control 0 is none."""
    options = parse_command_line(["--o", "External/job001/"])
    value = options.effective_settings()[name]
    word = {"class": "all", "max_particles": "all", "noise_control": "off"}.get(name, "auto")
    assert value == 0
    assert in_words(name, value) == word
    assert in_words(name, 7) == "7"
    assert parse_command_line(["--o", "External/job001/", f"--{name}", word]) == options


def test_a_zero_that_is_a_number_stays_one():
    assert in_words("seed", 0) == "0"
    assert in_words("verbose", False) == "no"


def test_names_that_relion_uses():
    options = parse_command_line(["--i", "p.star", "--ref", "r.mrc", "--mask", "m.mrc", "--random_seed", "4"])
    assert (options.in_parts, options.in_3dref, options.in_mask) == (Path("p.star"), Path("r.mrc"), Path("m.mrc"))
    assert options.seed == 4


def test_a_path_with_a_blank_in_quotation_marks():
    assert parse_command_line(["--in_parts", "My Project/run.star"]).particle_table == Path("My Project/run.star")


def test_what_is_missing_is_named():
    options = parse_command_line(["--j", "2"])
    with pytest.raises(OptionError, match=r"--o is missing"):
        _ = options.directory
    with pytest.raises(OptionError, match=r"--in_parts is missing"):
        _ = options.particle_table


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--o External/job012/ --bad", Path("External/job012")),
        ("--bad --o=External/job012/", Path("External/job012")),
        ("--bad --o", None),
        ("--o --bad", None),
        ("--out x", None),
        ("", None),
    ],
)
def test_the_job_directory_is_found_in_a_line_that_cannot_be_parsed(line: str, expected: Path | None):
    assert find_output_directory(line.split()) == expected


def test_help_tells_meaning_bounds_unit_and_default_of_every_option():
    text = help_text("usage")
    for name, field in fields_by_option().items():
        entry = text.split(f"  --{name}\n")[1].split("\n  --")[0]
        assert field.description
        assert field.description in entry
        assert allowed_values(field) in entry
    assert "default auto" in text
    assert "Angstrom" in text


@given(st.dictionaries(st.sampled_from(["steps", "seed", "n_gaussians"]), st.integers(0, 100_000)), st.floats(0, 1000))
def test_effective_settings_typed_again_give_the_same_run(integers: dict[str, int], maxres: float):
    options = JobOptions.model_validate({**integers, "maxres": maxres, "o": "External/job001/"})
    words = [
        word
        for name, value in options.effective_settings().items()
        if value is not None
        for word in (f"--{name}", str(value))
    ]
    assert parse_command_line(words) == options
