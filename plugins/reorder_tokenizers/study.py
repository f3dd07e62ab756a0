"""All that the command does: images, training, figures, file and picture.

B images, C channels, H W pixels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from reorder_core import ComponentRef, Context, DataFacts, RunError, UsageError
from reorder_core.bars import bars
from reorder_core.catalogue import Catalogue
from reorder_core.interfaces.dataset import evenly
from reorder_core.pixels import FolderImages, Pixels, Size, SplitImages, Unreadable
from reorder_core.recipe import load_recipe
from reorder_core.recipe_yaml import read_yaml
from reorder_tokenizers.learned import Learned
from reorder_tokenizers.picture import IMAGES, draw
from reorder_tokenizers.report import Figures, print_figures, psnr
from reorder_tokenizers.source import Counted, Part

_KEPT_ASIDE = 20  # one image in so many of a folder takes no part in the training
_MEASURED = 1024  # images whose reconstructions are measured, at most


@dataclass(frozen=True)
class Wanted:
    """What to learn from: a recipe with overrides, or a folder with a patch size. image_size: (height, width)."""

    recipe: Path | None
    overrides: Sequence[str]
    data: Path | None
    patch: int | None
    image_size: Size | None


@dataclass(frozen=True)
class Opened:
    """train: to learn from. measured: for the figures; `held_out` says whether these are others. origins: of both."""

    label: str
    context: Context
    train: Pixels
    measured: Pixels
    held_out: bool
    origins: tuple[Counted, ...]

    @property
    def skipped(self) -> int:
        """How many images could not be read so far."""
        return sum(len(origin.skipped) for origin in self.origins)


def run_training(
    wanted: Wanted,
    kind: str,
    codes: int | None,
    epochs: int | None,
    chosen: Sequence[str],
    images: int | None,
    unreadable: Unreadable,
    seed: int | None,
    out: Path,
    as_json: bool,
) -> int:
    """Train, measure, write, say; returns the exit code. Nothing is written before all of it is there."""
    opened = _open(wanted, unreadable, seed, images)
    tokenizer = cast(Learned, opened.context.resolve(ComponentRef("tokenizer", kind, _settings(chosen, codes, epochs))))
    console = Console(stderr=as_json)
    started = time.perf_counter()
    _learn(tokenizer, opened, console)
    seconds = time.perf_counter() - started
    assert tokenizer.usage is not None
    decibels, measured = psnr(tokenizer, opened.measured)
    if not measured:
        raise RunError("not one of the images that were kept aside can be read: look at the folder")
    figures = Figures(tokenizer.usage, decibels, measured, opened.held_out, len(opened.train), opened.skipped, seconds)
    picture = out.with_suffix(".png")
    title = f"{kind} on {opened.label}: {figures.psnr:.2f} dB, perplexity {figures.usage.perplexity:.0f}"
    shown_BCHW = opened.measured.load(evenly(len(opened.measured), IMAGES)).images_BCHW
    try:
        tokenizer.save(out, figures.as_json())
        draw(tokenizer, shown_BCHW, figures.usage, title, picture)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror}): choose another --out") from error
    if as_json:
        facts = {"kind": kind, "patch": opened.context.patch, "channels": opened.context.channels}
        of_file = {"codes": tokenizer.codes, "file": str(out), "picture": str(picture)}
        print(json.dumps({**facts, **of_file, **figures.as_json()}))
    else:
        print_figures(figures, tokenizer, out, picture, console)
    return 0


def _settings(chosen: Sequence[str], codes: int | None, epochs: int | None) -> dict[str, Any]:
    """The settings of the command line, as a recipe would have them. Raises `UsageError` for what is no KEY=VALUE."""
    found: dict[str, Any] = {"codes": codes, "epochs": epochs}
    for text in chosen:
        key, is_there, value = text.partition("=")
        document = read_yaml(value)
        if not is_there or not key or document.problems:
            raise UsageError(f"--setting {text}: write KEY=VALUE, for example -s batch_size=128")
        if key == "path":
            raise UsageError("--setting path: a file is not trained again; say with --out where the new one goes")
        if found.get(key) is not None:
            raise UsageError(f"--setting {text}: '{key}' is given twice; give it once")
        found[key] = document.value
    return {key: value for key, value in found.items() if value is not None}


def _open(wanted: Wanted, unreadable: Unreadable, seed: int | None, images: int | None) -> Opened:
    if wanted.recipe is not None:
        return _open_recipe(wanted, unreadable, seed, images)
    assert wanted.data is not None
    assert wanted.patch is not None
    folder = FolderImages(wanted.data, wanted.image_size, unreadable)
    facts = DataFacts(*folder.size, folder.channels, train=len(folder))
    context = Context.of_data(facts, wanted.patch, seed or 0, Catalogue.load().build)
    numbers = evenly(len(folder), images or len(folder))
    aside = numbers[_KEPT_ASIDE - 1 :: _KEPT_ASIDE]
    train = [number for place, number in enumerate(numbers) if (place + 1) % _KEPT_ASIDE]
    measured = aside or train
    counted = Counted(folder)
    few = Part(counted, [measured[place] for place in evenly(len(measured), _MEASURED)])
    return Opened(str(wanted.data), context, Part(counted, train), few, bool(aside), (counted,))


def _open_recipe(wanted: Wanted, unreadable: Unreadable, seed: int | None, images: int | None) -> Opened:
    """The data set and nothing else of a recipe."""
    assert wanted.recipe is not None
    recipe = load_recipe(wanted.recipe, wanted.overrides)
    facts = recipe.facts
    own = recipe.seed if seed is None else seed
    context = Context.of_data(facts.data, wanted.patch or facts.patch, own, Catalogue.load().build)
    dataset = context.resolve(recipe.data.ref)
    split = SplitImages(dataset.train, unreadable)
    train, validation = Counted(split), Counted(SplitImages(dataset.validation, unreadable, range_of=split))
    numbers = evenly(len(train), images or len(train))
    few = Part(validation, evenly(len(validation), _MEASURED))
    return Opened(recipe.data.ref.name, context, Part(train, numbers), few, True, (train, validation))


def _learn(tokenizer: Learned, opened: Opened, console: Console) -> None:
    with bars(console, "images") as display:
        bar = display.add_task(f"{tokenizer.kind}: reading")

        def say(done: int, total: int) -> None:
            skipped = f", {opened.skipped} skipped" if opened.skipped else ""
            text = f"{tokenizer.kind}: {tokenizer.status}{skipped}"
            display.update(bar, completed=done, total=total, description=text)

        tokenizer.learn(opened.train, say)
