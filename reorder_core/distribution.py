"""The files of an installable plugin, filled in from texts: what `reorder new` writes for any kind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable


def distribution(kind: str, name: str, texts: Traversable, words: Mapping[str, str] | None = None) -> dict[str, str]:
    """The files of one distribution, by path, for a component `name` of a kind: what the template of a `Kind` returns.

    texts: a folder with pyproject, readme, init, plugin, settings, test and the kind's own text (all .txt), in which
    $DISTRIBUTION, $PACKAGE, $CLASS, $SETTINGS, $NAME and the keys of `words` are filled in.
    """
    camel = "".join(part.capitalize() for part in name.split("_"))
    blanks = {
        "$DISTRIBUTION": f"reorder-{name.replace('_', '-')}",
        "$PACKAGE": f"reorder_{name}",
        "$CLASS": f"{camel}{kind.capitalize()}",
        "$SETTINGS": f"{camel}Settings",
        "$NAME": name,
        **(words or {}),
    }

    def filled(text: str) -> str:
        for blank, value in blanks.items():
            text = text.replace(blank, value)
        return text

    source = f"src/reorder_{name}"
    layout = {
        "pyproject.toml": "pyproject.txt",
        "README.md": "readme.txt",
        f"{source}/__init__.py": "init.txt",
        f"{source}/plugin.py": "plugin.txt",
        f"{source}/settings.py": "settings.txt",
        f"{source}/{kind}.py": f"{kind}.txt",
        f"tests/test_{name}.py": "test.txt",
    }
    return {path: filled((texts / text).read_text(encoding="utf-8")) for path, text in layout.items()}
