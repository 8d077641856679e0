"""The launcher and the files to copy: what RELION or a shell makes of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import starfile

from relion_external.options import parse_command_line

VALUES = {"sym": "D2", "fit": "images", "invert_contrast": "yes", "engine": "cuda"}  # where a number will not do
TEMPLATES = Path(__file__).resolve().parents[2] / "relion_external" / "templates"
SAY = '#!/bin/sh\necho {name} "$@"\n'


def program(path: Path, name: str) -> Path:
    """An executable that says its name and its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SAY.format(name=name))
    path.chmod(0o755)
    return path


def launch(launcher: Path, *words: str, path: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", launcher, *words],
        env={"PATH": f"{path}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_launcher_finds_the_program_and_passes_every_word_on(tmp_path: Path):
    """Named by the environment, beside the installed package, or on the PATH, in this order."""
    installed = tmp_path / "venv/lib/python3.12/site-packages/relion_external/templates/gem-external.sh"
    installed.parent.mkdir(parents=True)
    shutil.copy(TEMPLATES / "gem-external.sh", installed)
    on_path = program(tmp_path / "somewhere/gem-external", "on-path")
    words = ["--o", "External/job001/", "--in_parts", "My Project/run_data.star"]
    said = " ".join(words)
    assert launch(installed, *words, path=str(on_path.parent)).stdout == f"on-path {said}\n"
    program(tmp_path / "venv/bin/gem-external", "installed")
    assert launch(installed, *words, path=str(on_path.parent)).stdout == f"installed {said}\n"
    named = program(tmp_path / "named", "named")
    assert launch(installed, *words, path=str(on_path.parent), GEM_EXTERNAL=str(named)).stdout == f"named {said}\n"


def test_the_launcher_finds_the_program_of_a_source_folder(tmp_path: Path):
    """After install.sh without --prefix, with nothing in the environment but the system's PATH."""
    launcher = tmp_path / "gem_plugin/relion_external/templates/gem-external.sh"
    launcher.parent.mkdir(parents=True)
    shutil.copy(TEMPLATES / "gem-external.sh", launcher)
    program(tmp_path / "gem_plugin/.venv/bin/gem-external", "from-source")
    command = ["env", "-i", "PATH=/usr/bin:/bin", "/bin/sh", str(launcher), "--o", "External/job001/"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("from-source --o External/job001/\n", 0)


def test_a_launcher_without_a_program_says_so_and_leaves_a_marker(tmp_path: Path):
    launcher = Path(shutil.copy(TEMPLATES / "gem-external.sh", tmp_path))
    result = launch(launcher, "--o", f"{tmp_path}/", "--j", "1")
    assert result.returncode == 1
    assert "was not found" in result.stderr
    assert (tmp_path / "RELION_JOB_EXIT_FAILURE").exists()


@pytest.mark.parametrize("name", ["job_relion31.star", "job_relion4.star"])
def test_job_files_name_the_job_and_options_that_exist(name: str):
    blocks = starfile.read(TEMPLATES / name, always_dict=True)
    assert ("rlnJobTypeLabel" in blocks["job"]) == (name == "job_relion4.star")
    options = blocks["joboptions_values"]
    values = dict(zip(options["rlnJobOptionVariable"], options["rlnJobOptionValue"], strict=True))
    assert values["fn_exe"] == "gem-external"
    assert {"in_part", "in_3dref", "in_mask", "nr_threads", "param1_label", "param1_value"} <= set(values)


def test_the_launcher_of_several_machines_names_the_first_and_starts_all(tmp_path: Path):
    for name in ("gem-external.sh", "gem-external-nodes.sh"):
        shutil.copy(TEMPLATES / name, tmp_path)
    (tmp_path / "scontrol").write_text("#!/bin/sh\n[ \"$3\" = 'node[7-8]' ] && printf 'node7\\nnode8\\n'\n")
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$MASTER_ADDR:$MASTER_PORT"\nshift\nexec "$@"\n')
    named = program(tmp_path / "named", "named")
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    words = ["--o", "External/job001/", "--in_parts", "My Project/run_data.star"]
    launcher = tmp_path / "gem-external-nodes.sh"
    alone = launch(launcher, *words, path=str(tmp_path), GEM_EXTERNAL=str(named))
    assert alone.stdout == f"named {' '.join(words)}\n"
    allocation = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "40012"}
    several = launch(launcher, *words, path=str(tmp_path), GEM_EXTERNAL=str(named), **allocation)
    assert several.stdout == f"node7:20012\nnamed {' '.join(words)}\n"


@pytest.mark.parametrize("name", ["slurm.sh", "slurm_nodes.sh"])
def test_the_submission_script_as_relion_fills_it_in(tmp_path: Path, name: str):
    """RELION replaces the whole line of the command; the shell waits for the command when it is told to end."""
    text = (TEMPLATES / name).read_text()
    lines = [
        line if "XXXcommandXXX" not in line else "sh -c 'kill -TERM $PPID; sleep 1; echo still here'"
        for line in text.splitlines()
    ]
    assert sum("XXXcommandXXX" in line for line in text.splitlines()) == 1
    for word in ("XXXnameXXX", "XXXqueueXXX", "XXXoutfileXXX", "XXXerrfileXXX", "XXXthreadsXXX"):
        assert any(word in line and line.startswith("#SBATCH") for line in lines)
    script = tmp_path / "run_submit.script"
    script.write_text("\n".join(lines))
    result = subprocess.run(["bash", script], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert result.stdout == "still here\n"


@pytest.mark.parametrize("document", ["relion.md"])
def test_settings_in_the_documentation_exist(document: str):
    text = (TEMPLATES.parents[1] / "docs" / document).read_text()
    table = text.split("| label | value | when |")[1].split("\n\n")[0]
    labels = [line.split("`")[1] for line in table.splitlines()[2:] if "`" in line]
    assert len(labels) >= 4
    for label in labels:
        words = [f"--{label}"] if label == "verbose" else [f"--{label}", VALUES.get(label, "5")]
        parse_command_line(words)
