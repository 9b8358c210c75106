"""The structure of the package: each module imports alone, imports go down the floors only, types and style check."""

import ast
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).parent.parent
# Rooms from the top floor down, on one floor from left to right: a module imports from its own room and later ones.
FLOORS = """
    __main__
    cli
    report testing
    zoo
    serving tiling exporting sampling training language loading
    listing artifacts
    tasks models registry
    data
    preprocessing weights checkpoint layers
    exif metrics spec recipe options search_space files errors progress
""".split()
BY_NAME = ("zoo.registry", "zoo.models")  # the one exception: the registry imports the model families by name, late
SCRIPTS = {"zoo.__main__", "zoo.artifacts.serve_golden"}  # run, not imported
EACH_ALONE = """
import importlib, os, sys, traceback
import keras, numpy, pooch, tensorflow, typer  # what takes time, once

assert "zoo" not in sys.modules
for module in sys.argv[1:]:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    try:
        importlib.import_module(module)
    except BaseException:
        print(module, traceback.format_exc(), flush=True)
    os._exit(0)
"""


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(ROOT.glob("zoo/**/*.py"))}


def room(module):
    return module.split(".")[1] if "." in module else module


def imports(module):
    """The modules of zoo that a module imports anywhere, also late and by name, except for type checking."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for node in checked:
        node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {ast.literal_eval(node.args[0])}
    return found & MODULES.keys()


IMPORTS = {module: imports(module) for module in MODULES}


@pytest.mark.slow
def test_each_module_imports_alone():
    """Each in a process of its own, forked from one that has loaded nothing of zoo."""
    command = [sys.executable, "-c", EACH_ALONE, *sorted(MODULES.keys() - SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout


def test_imports_go_down_the_floors():
    assert {room(module) for module in MODULES} == set(FLOORS)
    upward = {
        (module, imported)
        for module, found in IMPORTS.items()
        for imported in found
        if FLOORS.index(room(module)) > FLOORS.index(room(imported))
    }
    assert upward == {BY_NAME}


def test_no_modules_import_each_other():
    """Also within a room, and those that import each other through a third one."""
    graph = {module: found - {BY_NAME[1]} if module == BY_NAME[0] else found for module, found in IMPORTS.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError and names the modules


@pytest.mark.parametrize("check", ["mypy", "ruff check", "ruff format --check"])
def test_types_and_style(check):
    done = subprocess.run([sys.executable, "-m", *check.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_shipped():
    """Type checkers read the annotations of an installed package where it holds this file."""
    assert Path(importlib.util.find_spec("zoo").origin).with_name("py.typed").is_file()


def test_each_mutant_can_be_applied():
    mutants.check(mutants.MUTANTS)
