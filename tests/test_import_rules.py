"""The rooms of the house: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Lines of a function, its signature included and its docstring left out.
MOST_LINES = 50


def test_no_room_imports_what_it_must_not():
    pytest.importorskip("importlinter")
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_importing_the_library_brings_neither_torch_nor_pandas_nor_mlflow():
    program = (
        "import sys, bench; bench.measure; heavy = {'torch', 'pandas', 'mlflow', 'hydra', 'plotly'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_function_of_the_rooms_fits_on_a_screen():
    rooms = [path for room in ("bench", "reports", "suites") for path in (ROOT / room).rglob("*.py")]
    assert rooms
    long = []
    for path in rooms:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and lines_of_code(node) > MOST_LINES:
                long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not long


def lines_of_code(function):
    """Lines of a function without its docstring, the signature included."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1) * documented


def test_no_modules_import_each_other_in_a_circle_not_even_for_their_types():
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("bench", "reports", "suites", exclude_type_checking_imports=False, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while leaves := {module for module, found in imported.items() if not found & imported.keys()}:
        imported = {module: found for module, found in imported.items() if module not in leaves}
    left = {
        module: sorted(found & imported.keys()) for module, found in imported.items()
    }  # circles, and what leads to one
    assert left == {}
