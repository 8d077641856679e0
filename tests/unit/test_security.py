"""No shell, no code from files, nothing fetched: what the sources may not call. And image names that lead elsewhere."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gem_plugin.errors import InputError
from gem_plugin.io.images import ImageReader
from tests.unit.small_project import STACKS, SmallProject, write_mrc

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("gem_plugin", "relion_external") for path in (ROOT / folder).rglob("*.py"))
SCRIPTS = [ROOT / "install.sh", *sorted((ROOT / "relion_external/templates").glob("*.sh"))]

# modules that run what they read, and that talk to a network
FORBIDDEN_IMPORTS = {
    *("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code", "pty"),
    *("urllib", "requests", "http", "httpx", "ftplib", "smtplib", "xmlrpc", "aiohttp"),
}
# team.py names an error of pickle's, by which torch.distributed says that the other end has gone
ALLOWED_IMPORTS = {("gem_plugin/team.py", "pickle")}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    *("os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.execl", "os.execlp", "os.spawnl", "os.spawnv"),
    *("tempfile.mktemp", "subprocess.getoutput", "subprocess.getstatusoutput", "os.umask", "os.chmod"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "pickle.dump", "pickle.dumps", "np.fromregex"),
    *("pd.read_pickle", "pd.eval", "torch.hub.load", "importlib.import_module"),
}


def name_of(node: ast.expr) -> str:
    """``os.path.join`` of the expression that says so; empty for what is no dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def forbidden_calls(source: str) -> Iterator[str]:
    """What the source calls or imports and may not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if name in FORBIDDEN_NAMES | FORBIDDEN_CALLS:
                yield name
            if "shell" in given and not is_constant(given["shell"], False):
                yield f"{name}(shell)"
            if name in ("np.load", "numpy.load", "npy.read_array") and not is_constant(
                given.get("allow_pickle"), False
            ):
                yield f"{name} without allow_pickle=False"
            if name == "torch.load" and not is_constant(given.get("weights_only"), True):
                yield f"{name} without weights_only=True"


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "os.system('ls')",
        "subprocess.run(command, shell=True)",
        "subprocess.Popen(command, shell=wanted)",
        "import pickle",
        "from pickle import loads",
        "from urllib.request import urlopen",
        "import requests",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "npy.read_array(file)",
        "pd.read_pickle(path)",
    ],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert len(list(forbidden_calls(line))) == 1
    assert not list(forbidden_calls("np.load(path, allow_pickle=False)\nsubprocess.run(['ls'])\nmodel.eval()"))


def test_the_sources_run_nothing_that_they_read() -> None:
    assert len(SOURCES) > 100
    found = {
        (str(path.relative_to(ROOT)), what) for path in SOURCES for what in forbidden_calls(path.read_text("utf-8"))
    }
    assert found == ALLOWED_IMPORTS


def test_no_script_evaluates_its_words() -> None:
    assert len(SCRIPTS) >= 4
    for script in SCRIPTS:
        text = "\n".join(line for line in script.read_text().splitlines() if not line.lstrip().startswith("#"))
        assert not re.search(r"\beval\b", text), script.name
        assert not re.search(r"\b(curl|wget)\b[^\n]*\|\s*(ba)?sh\b", text), script.name


def named(project: SmallProject, name: str) -> SmallProject:
    """The project with one of its stacks under another name."""
    texts = project.particles["rlnImageName"]
    project.particles["rlnImageName"] = [str(text).replace(STACKS[0], name) for text in texts]
    project.stacks[name] = project.stacks[STACKS[0]]
    return project


def test_a_name_may_leave_the_project_where_there_is_a_stack(tmp_path: Path) -> None:
    """As RELION reads it: through the system, for which link/.. is the folder above the link's target."""
    (tmp_path / "project").mkdir()
    project = SmallProject(tmp_path / "project")
    archive = tmp_path / "archive/2024"
    archive.mkdir(parents=True)
    write_mrc(tmp_path / "archive/mic.mrcs", project.stacks[STACKS[0]])
    write_mrc(tmp_path / "project/mic.mrcs", project.stacks[STACKS[0]] + 100)  # where link/.. is not
    (tmp_path / "project/link").symlink_to(archive)
    for name in ("../archive/mic.mrcs", "link/../mic.mrcs"):
        other = named(SmallProject(tmp_path / "project"), name)
        with ImageReader(other.read()) as reader:
            images = reader.read(np.arange(6))
        for row in range(6):
            np.testing.assert_array_equal(images[row], other.image(row))


def test_a_name_that_leads_nowhere_is_refused_with_its_particle(tmp_path: Path) -> None:
    project = named(SmallProject(tmp_path), "../../nowhere/mic.mrcs")
    with pytest.raises(InputError, match=r"nowhere/mic\.mrcs does not exist or cannot be reached.*row \d+ of"):
        project.read()


def test_a_stack_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    project = SmallProject(tmp_path / "project")
    secret = tmp_path / "secret.mrcs"
    write_mrc(secret, project.stacks[STACKS[0]])
    secret.chmod(0)
    if os.geteuid() == 0:  # who may read everything
        plain = Path.open

        def refuse(path: Path, *words: object, **others: object) -> object:
            if path.name == "secret.mrcs":
                raise PermissionError(13, "Permission denied", str(path))
            return plain(path, *words, **others)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"secret\.mrcs cannot be read: Permission denied"):
        named(project, "../secret.mrcs").read()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    project = SmallProject(tmp_path)
    name = "/dev/zero" if kind == "device" else "odd.mrcs"
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    if kind == "folder":
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"is no file, but .* names it as the stack of row \d+ of data_particles"):
        named(project, name).read()
