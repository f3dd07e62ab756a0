"""What `reorder new tokenizer NAME` writes: equally frequent levels of brightness, with tests that pass."""

from __future__ import annotations

from importlib.resources import files


def tokenizer(name: str) -> dict[str, str]:
    """The files of one distribution, by path; their texts stand in the folder `template`, with $WORDS to fill in."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    blanks = {
        "$DISTRIBUTION": f"reorder-{name.replace('_', '-')}",
        "$PACKAGE": f"reorder_{name}",
        "$CLASS": f"{camel}Tokenizer",
        "$SETTINGS": f"{camel}Settings",
        "$NAME": name,
    }
    texts = files("reorder_tokenizers") / "template"
    source = f"src/reorder_{name}"
    layout = {
        "pyproject.toml": "pyproject.txt",
        "README.md": "readme.txt",
        f"{source}/__init__.py": "init.txt",
        f"{source}/plugin.py": "plugin.txt",
        f"{source}/settings.py": "settings.txt",
        f"{source}/tokenizer.py": "tokenizer.txt",
        f"tests/test_{name}.py": "test.txt",
    }

    def filled(text: str) -> str:
        for blank, value in blanks.items():
            text = text.replace(blank, value)
        return text

    return {path: filled((texts / text).read_text(encoding="utf-8")) for path, text in layout.items()}
