"""The house rules hold: who imports whom, how fast and long, documented and pinned."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "models", "train", "research", "configs")
SOURCES = [p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]
FORBIDDEN = {
    "data": {"models", "train", "research", "configs"},
    "models": {"data", "train", "research", "configs"},
    "train": {"research", "configs"},
    "research": {"configs"},
    "configs": {"data", "models", "train", "research"},
}
HEAVY = ("torch", "tensorflow", "transformers")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules(path: Path) -> set[str]:
    """Everything that a file imports, at any depth: modules, and names in them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(path: Path) -> set[str]:
    """The top-level names of everything that a file imports, at any depth."""
    return {name.partition(".")[0] for name in modules(path)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path):
    """research -> train -> models; data stands alone; configs are numbers and names."""
    package = path.relative_to(ROOT).parts[0]
    names = imported(path)
    assert not names & FORBIDDEN[package]
    assert not names & {"torch", "tensorflow", "tests", "helpers"} or (
        # The benchmarks measure torch side by side; nothing imports them.
        path.is_relative_to(ROOT / "research" / "benchmarks")
    )
    if package == "configs":
        assert names <= {"ml_collections"}


def test_chapters_do_not_import_each_other():
    """Nor does what they share, the modules of research/, import a chapter."""
    found = {path.parent for path in (ROOT / "research").glob("*/experiment.py")}
    assert {"easy_to_hard", "lean_star", "recite"} <= {path.name for path in found}
    crossing = [
        f"{name_of(path)}: {name}"
        for path in SOURCES
        if path.parent == ROOT / "research" or found & set(path.parents)
        for name in sorted(modules(path))
        for chapter in found - set(path.parents)
        if f"{name}.".startswith(f"research.{chapter.name}.")
    ]
    assert not crossing, "\n".join(crossing)


def test_core_imports_are_light():
    """Under 3 seconds of processor time, and without the heavy libraries."""
    core = (
        "data.examples", "data.batches", "data.worlds.arithmetic", "models.decoder",
        "models.sampler", "models.pretrained", "train.loop", "train.sft",
        "research.run",
    )  # fmt: skip
    code = f"""
import sys, time
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(name + " is not needed here")
sys.meta_path.insert(0, Blocked())
import {", ".join(core)}
print(time.process_time(), *(set(sys.modules) & set({HEAVY!r})))
"""
    for _ in range(3):  # another process may have taken the disk or the core
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds, *loaded = done.stdout.split()
        assert not loaded
        if float(seconds) < 3:
            return
    pytest.fail(f"importing the core takes {seconds} s")


def test_files_are_short():
    """At most 450 lines each; half of them at most 150."""
    lengths = {name_of(p): len(p.read_text().splitlines()) for p in SOURCES}
    assert not {name: n for name, n in lengths.items() if n > 450}
    assert sorted(lengths.values())[len(lengths) // 2] <= 150


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_everything_says_what_it_is(path):
    """A docstring for every module, and for every public function and class below it.

    Exempt: one-line helpers whose name says it all, methods, entry points' main.
    """
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    if path.is_relative_to(ROOT / "configs"):
        return
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and node.name not in ("main", "define_flags")
        and node.end_lineno - node.lineno > 6
    ]
    assert not bare, f"{name_of(path)}: {', '.join(bare)}"


def pins(name: str) -> dict[str, str]:
    """{normalised name: version} of a requirements file; anything else is an error."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line:
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9._+!-]+)", line)
            assert match, f"{name}: {line!r} is not pinned with =="
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def test_requirements_are_pinned_and_constrained():
    """Every package has one version, those that the core brings along included."""
    core, tests = pins("requirements.txt"), pins("requirements-test.txt")
    constraints = pins("constraints.txt")
    assert not set(core) & set(tests)
    assert not {"torch", "tensorflow", "libtpu"} & set(core)
    for name, version in (core | tests).items():
        assert constraints.get(name, version) == version, name
    reached, waiting = set(), list(core)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += dependencies(name)
    missing = reached - set(constraints) - {"setuptools", "pip"}
    assert not missing, f"constraints.txt lacks {', '.join(sorted(missing))}"


def dependencies(name: str) -> list[str]:
    """What an installed package requires here, extras aside."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return []  # of another platform
    wanted = [Requirement(line) for line in lines]
    return [
        re.sub(r"[-_.]+", "-", r.name).lower()
        for r in wanted
        if r.marker is None or r.marker.evaluate({"extra": ""})
    ]


def test_what_the_code_imports_is_required():
    """Third-party names in the sources belong to packages in requirements.txt."""
    required = {name.replace("-", "_") for name in pins("requirements.txt")}
    shipped_as = {"PIL": "pillow", "jinja2": "jinja2", "absl": "absl_py", "orbax":
                  "orbax_checkpoint", "tensorboardX": "tensorboardx"}  # fmt: skip
    allowed = {"ml_dtypes", "etils", "IPython"}  # come with jax, and with notebooks
    for path in SOURCES:
        if path.is_relative_to(ROOT / "research" / "benchmarks"):
            continue
        for name in imported(path) - set(sys.stdlib_module_names) - set(PACKAGES):
            package = shipped_as.get(name, name)
            assert package in required or name in allowed, f"{name_of(path)}: {name}"


def test_the_readme_has_the_two_commands():
    """A newcomer finds `make demo` and `make test`, and Makefile has both."""
    makefile, readme = (ROOT / "Makefile").read_text(), ROOT / "README.md"
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"make {target}" in readme.read_text()
    for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme.read_text()):
        assert (ROOT / image).is_file(), image


def test_all_packages_are_installed():
    """Those of pyproject.toml are the folders with an __init__.py, and no others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("configs", "data", "models", "research", "train")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found
