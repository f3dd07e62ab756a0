"""Tiny plugin distributions for tests: plain folders with a dist-info, put on PYTHONPATH, never installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Guests:
    """A folder of distributions, and the program run with them beside what is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, source: str, **more: str) -> None:
        """One distribution `reorder-NAME` with the module `guest_NAME` (and further modules) as its plugin NAME."""
        info = self.folder / f"reorder_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: reorder-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[reorder]\n{name} = guest_{name}\n")
        (self.folder / f"guest_{name}.py").write_text(source)
        for module, text in more.items():
            (self.folder / f"{module}.py").write_text(text)

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """`reorder …` in a process of its own."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), **variables}
        return subprocess.run(
            [sys.executable, "-m", "reorder_core", *arguments],
            env=environment,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )


def offer(*components: str, extra: str = "") -> str:
    """The source of a plugin that offers `kind:name:target` (and `:settings`)."""
    rows = []
    for component in components:
        kind, name, module, attribute, *settings = component.split(":")
        chosen = f'"{settings[0]}:{settings[1]}"' if settings else "None"
        rows.append(f'Component("{kind}", "{name}", "{module}:{attribute}", "a guest", settings={chosen})')
    return (
        "from reorder_core import Command, Component, Kind, hookimpl\n"
        f"@hookimpl\ndef components():\n    return [{', '.join(rows)}]\n{extra}"
    )


CALM = """
class Calm:
    def __init__(self, settings, context): pass
    def permutation(self, grid):
        import numpy as np
        return np.arange(grid.size)[::-1].copy()
"""


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    """An empty house for guests."""
    return Guests(tmp_path / "guests")


@pytest.fixture(scope="session")
def source_of():
    """`offer`, for tests that write their own plugin."""
    return offer


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Guests:
    """Nine bad guests and a calm one, all at once."""
    house = Guests(tmp_path_factory.mktemp("crowd"))
    house.add("calm", offer("ordering:calm:guest_calm:Calm", extra=CALM))
    house.add("raises", "raise RuntimeError('the guest fell over\\nin two lines')\n")
    house.add("exits", "import sys\nsys.exit(3)\n")
    house.add("twice", offer("ordering:same:guest_twice:A", "ordering:same:guest_twice:B"))
    house.add("rival", offer("policy:uniform:guest_rival:Uniform"))
    house.add("misspelt", offer(extra="@hookimpl\ndef componets():\n    return []\n"))
    house.add("wrongkind", offer("orderng:lost:guest_wrongkind:Lost"))
    house.add("eager", "import torch\n" + offer("ordering:eager:guest_eager:Calm", extra=CALM))
    house.add(
        "wrongset",
        offer("ordering:wrongset:guest_wrongset:Calm:wrongset_settings:Chosen", extra=CALM),
        wrongset_settings="class Chosen:\n    step = 2\n",
    )
    house.add(
        "noperm",
        offer(
            "ordering:noperm:guest_noperm:NoPerm",
            extra=CALM.replace("Calm", "NoPerm").replace("[::-1].copy()", " // 2"),
        ),
    )
    return house
