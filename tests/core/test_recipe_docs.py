"""docs/recipes.md lists every key with its default and meaning, as the models have them, and shows real messages."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from reorder_core.recipe import KEYS, PARTS, SECTIONS, load_recipe, recipe_from_mapping
from reorder_core.recipe_sections import HeadSection
from reorder_core.recipe_settings import plain
from reorder_core.recipe_yaml import read_yaml, write_value

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def rows(model: type[BaseModel], path: str):
    """One row of a table for each key: key, default, meaning."""
    for key, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            yield from rows(type(default), f"{path}{key}.")
            continue
        shown = "needed" if default is PydanticUndefined else f"`{write_value(plain(default))}`"
        yield f"| `{path}{key}` | {shown} | {field.description} |"


def expected() -> list[str]:
    found = [row for key, model in SECTIONS.items() for row in rows(model, f"{key}.")]
    return [*rows(HeadSection, ""), *found]


def test_every_key_stands_in_the_documentation_as_it_is():
    written = [line for line in TEXT.splitlines() if re.match(r"\| `[a-z_.]+` \| (`|needed)", line)]
    assert written == expected(), "\n".join(expected())


def test_every_top_level_key_is_explained():
    for key in (*KEYS, *PARTS):
        assert f"`{key}" in TEXT, key


def test_the_example_is_a_recipe(tmp_path):
    example, *_ = re.findall(r"```yaml\n(name:.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(example)
    recipe = load_recipe(path)
    assert recipe_from_mapping(recipe.resolved()) == recipe


def test_every_piece_of_yaml_reads():
    for piece in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL):
        assert read_yaml(piece).problems == []
