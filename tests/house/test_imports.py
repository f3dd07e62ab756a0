"""Who may import whom, read off the syntax trees; and what the light commands leave unimported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "reorder_core"
ROOMS = sorted(path for path in (ROOT / "plugins").glob("reorder_*") if path.is_dir())
HEAVY = {"torch", "numpy", "timm", "torchvision", "scipy", "sklearn", "matplotlib", "accelerate", "torchmetrics"}
LIGHT = [
    *(CORE / f"{name}.py" for name in ("__init__", "__main__", "component", "discovery", "catalogue", "settings")),
    *(CORE / f"{name}.py" for name in ("errors", "grid", "hookspecs", "plugin")),
    *CORE.glob("recipe*.py"),
    *(CORE / "cli").glob("*.py"),
    *(CORE / "interfaces").glob("*.py"),
    *(room / name for room in ROOMS for name in ("plugin.py", "settings.py", "__init__.py")),
]


def _is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(nodes: list[ast.stmt], inside_functions: bool) -> Iterator[str]:
    """Full names of imported modules; those for type checkers only are left out."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif _is_for_type_checkers(node):
            yield from imported(node.orelse, inside_functions)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            children = [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)
            ]
            yield from imported(children, inside_functions)  # type: ignore[arg-type]


def modules(path: Path, inside_functions: bool = True) -> list[str]:
    return list(imported(ast.parse(path.read_text()).body, inside_functions))


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [path for path in LIGHT if path.exists()], ids=name_of)
def test_what_light_commands_import_is_free_of_torch_and_numpy_at_the_top(path):
    assert not {name for name in modules(path, inside_functions=False) if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("path", python_files(CORE), ids=name_of)
def test_the_core_never_imports_a_room(path):
    rooms = {room.name for room in ROOMS}
    assert not {name for name in modules(path) if name.split(".")[0] in rooms}


@pytest.mark.parametrize("path", [path for room in ROOMS for path in python_files(room)], ids=name_of)
def test_a_room_imports_no_other_room_and_no_training(path):
    own = path.relative_to(ROOT / "plugins").parts[0]
    for name in modules(path):
        first = name.split(".")[0]
        assert first in ("reorder_core", own) or not first.startswith("reorder_"), f"{own} imports {name}"
        assert not name.startswith(("reorder_core.training", "reorder_core.cli")), f"{own} imports {name}"


def test_the_reader_of_imports_sees_what_it_should():
    tree = ast.parse(
        "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\n"
        "try:\n    from d import e\nexcept ImportError:\n    import f\ndef g():\n    import h\n"
    )
    assert list(imported(tree.body, inside_functions=False)) == ["a", "c", "d.e", "f"]
    assert list(imported(tree.body, inside_functions=True)) == ["a", "c", "d.e", "f", "h"]


def left_in_modules(code: str, *names: str) -> str:
    check = f"{code}\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["list", "plugins"], ["list"], ["list", "orderings", "--plain"], ["list", "recipes"]]
)
def test_list_imports_nothing_heavy(arguments):
    code = f"from reorder_core.cli.main import main\nassert main({arguments!r}) == 0"
    assert left_in_modules(code, "torch", "timm", "torchvision", "numpy", "pydantic", "rich") == "[]"


def test_settings_of_every_component_import_nothing_heavy():
    code = (
        "from reorder_core.catalogue import Catalogue\ncatalogue = Catalogue.load()\n"
        "for entry in catalogue.entries():\n    catalogue.settings_class(entry)"
    )
    assert left_in_modules(code, "torch", "timm", "torchvision", "numpy") == "[]"
