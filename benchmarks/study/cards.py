"""The model card table of docs/models.md: what each model costs at base size, and what was measured of it in small.

    reorder sensitivity runs/vit/<id> runs/mamba/<id> … --out found
    python benchmarks/study/cards.py found/sensitivity.json

Base size: width 768, depth 12, 12 heads (ARM-B and the hierarchy as their READMEs have them), pictures of one channel
and 224×224 pixels in patches of 16 (196 of them), and for the growth with the length in patches of 8 (784).
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from reorder_sensitivity.card import Card, card

from reorder_core.opened import open_recipe
from reorder_core.recipe import recipe_from_mapping

WIDE = {"width": 768, "depth": 12}
BASE: dict[str, dict[str, Any]] = {
    "vit": {**WIDE, "heads": 12},
    "image_transformer": {**WIDE, "heads": 12},
    "sparse_transformer": {**WIDE, "heads": 12},
    "longformer": {**WIDE, "heads": 12, "window": 14},
    "transformer_xl": {**WIDE, "heads": 12},
    "mamba": WIDE,
    "mamba2": WIDE,
    "arm": WIDE,
    "hierarchical": {"widths": [192, 384, 768], "depths": [2, 8, 2], "mixer": "mamba"},
}


def base_card(name: str, patch: int) -> Card:
    """The card of a model of base size on pictures of 224 pixels in patches of `patch`."""
    recipe = {
        "name": name,
        "data": {"name": "cluttered_digits", "size": 224, "train": 8, "validation": 2},
        "patch": {"size": patch},
        "ordering": "row_major",
        "backbone": {"name": name, **BASE[name]},
        "task": "classification",
        "training": {"epochs": 1, "batch_size": 8},
    }
    return card(open_recipe(recipe_from_mapping(recipe), "cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("found", type=Path, help="sensitivity.json of runs of recipes/models/")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {each["card"]["name"]: each for each in json.loads(given.found.read_text())}
    print(
        "| model | parameters, M | GFLOPs, 196 patches | 784 patches | × | attention | order | own order, % "
        "| random orders: output | accuracy, points | one adjacent swap: output | first/last |"
    )
    print("|---|---:|---:|---:|---:|---|---|---:|---:|---:|---:|---:|")
    for name in BASE:
        small, large = base_card(name, 16), base_card(name, 8)
        row = f"| `{name}` | {small.parameters / 1e6:.1f} | {small.flops / 1e9:.1f} | {large.flops / 1e9:.1f} "
        row += (
            f"| {large.flops / small.flops:.1f} | {small.attention} | {'matters' if small.order_sensitive else 'no'} "
        )
        if name in found:
            each = found[name]
            of = {reaction["name"]: reaction for reaction in each["reactions"]}
            row += (
                f"| {100 * each['own_score']:.1f} | {of['random']['output']:.3f} "
                f"| {100 * of['random']['change']['mean']:+.1f} | {of['adjacent swap']['output']:.3f} "
                f"| {each['retention']['first_to_last_quarter']:.2f} "
            )
        print(row + "|", flush=True)


if __name__ == "__main__":
    main()
