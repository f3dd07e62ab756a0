"""The room dynamic: layers that are shuffled in training, and patches reordered by what the model has seen so far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reorder_dynamic.dynamic_reorder import DynamicReorder
from reorder_dynamic.early_exit import answer as early_exit
from reorder_dynamic.layer_shuffle import LayerShuffle
from reorder_dynamic.settings import DynamicReorderSettings, LayerShuffleSettings

from reorder_core import Batch, Context, Features, Grid, Layout, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import check_backbone, check_between
from reorder_core.conformance import context as where
from reorder_core.model import Model
from reorder_core.recipe import RecipeError, load_recipe
from reorder_core.settings import ComponentRef
from reorder_core.training.build import Learner

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
GRID = Grid(3, 4)
SHUFFLE = {"name": "layer_shuffle", "probability": 1.0}


def order(seed: int = 0) -> Layout:
    return Layout(GRID, torch.randperm(12, generator=torch.Generator().manual_seed(seed))[None])


def tokens(batch: int = 2, seed: int = 1, width: int = 16) -> torch.Tensor:
    return torch.randn(batch, 12, width, generator=torch.Generator().manual_seed(seed))


def backbone(name: str = "vit", **settings: object) -> torch.nn.Module:
    small = {"width": 16, "depth": 4} | ({"heads": 2} if name != "mamba" else {"state": 4})
    return Catalogue.load().build(ComponentRef("backbone", name, small | settings), where(GRID))


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_layer_shuffle_keeps_the_contract(probability: float) -> None:
    check_between("layer_shuffle", {"probability": probability})


def test_shuffles_come_more_often_with_depth_and_the_order_comes_back() -> None:
    made = LayerShuffle(LayerShuffleSettings(probability=0.8), Context(GRID))
    made.prepare(4)
    torch.manual_seed(0)
    given, home, times = tokens(), order(), [0, 0, 0, 0]
    for _ in range(400):
        here, layout = given, home
        for k in range(4):
            here, layout = made(k, here, layout)
            times[k] += layout is not home
        assert layout is home
        assert torch.equal(here, given)
    assert times[3] == 0
    for k, expected in enumerate((0.4, 0.6, 0.8)):  # block k + 1 of 0 … 3 is the (k + 2)-th of 4
        assert times[k] / 400 == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("readout", ["class", "mean", "last"])
def test_a_shuffled_backbone_is_the_same_model_in_evaluation(readout: str) -> None:
    plain, shuffled = backbone("mamba", readout=readout), backbone("mamba", readout=readout, between=SHUFFLE)
    plain.load_state_dict(shuffled.state_dict())
    one, two = (made.eval()(tokens(), order()) for made in (plain, shuffled))
    assert torch.equal(one.summary_BD, two.summary_BD)
    torch.manual_seed(1)
    trained = shuffled.train()(tokens(), order())
    assert torch.equal(trained.levels[0].layout.perm_GN, order().perm_GN)
    assert not torch.allclose(trained.summary_BD, one.summary_BD, atol=1e-4)


def test_a_model_that_is_blind_to_the_order_does_not_see_the_shuffle() -> None:
    """The class token stays in its place, and every patch comes back to its own."""
    made = backbone("vit", between=SHUFFLE)
    one, two = made.eval()(tokens(), order()), made.train()(tokens(), order())
    torch.testing.assert_close(one.summary_BD, two.summary_BD, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.levels[0].tokens_BND, two.levels[0].tokens_BND, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba", "vit", "longformer", "arm"])
def test_backbones_keep_their_contract_with_it(name: str) -> None:
    small = {"mamba": {"state": 4}, "vit": {"heads": 2}, "longformer": {"heads": 2, "window": 4}, "arm": {"levels": 2}}
    check_backbone(name, {"width": 24, "depth": 2, "between": SHUFFLE} | small[name])


DYNAMIC = {"name": "dynamic_reorder", "after": 2}


@pytest.mark.parametrize("direction", ["ascending", "descending"])
@pytest.mark.parametrize("learn", ["exit", "order", "both"])
def test_dynamic_reorder_keeps_the_contract(direction: str, learn: str) -> None:
    check_between("dynamic_reorder", {"after": 2, "direction": direction, "learn": learn})


@pytest.mark.parametrize("name", ["mamba", "vit", "longformer", "arm", "transformer_xl", "sparse_transformer"])
def test_backbones_keep_their_contract_with_dynamic_reorder(name: str) -> None:
    heads = {"heads": 2}
    small = {"mamba": {"state": 4}, "longformer": {**heads, "window": 4}, "arm": {"levels": 2}}
    settings = {"width": 24, "depth": 2, "between": {"name": "dynamic_reorder"}} | small.get(name, heads)
    check_backbone(name, settings)


def moved(made: torch.nn.Module, seed: int = 3) -> torch.nn.Module:
    """Weights away from zero, as after training."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in made.parameters():
            values.add_(0.3 * torch.randn(values.shape, generator=draw))
    return made


@torch.no_grad()
@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_at_first_nothing_moves_and_then_the_evidence_is_in_order(direction: str) -> None:
    settings = DynamicReorderSettings(after=1, direction=direction)  # type: ignore[arg-type]
    made = DynamicReorder(settings, Context(GRID, width=16)).eval()
    made.prepare(3)
    same, layout = made(0, tokens(), order())
    assert torch.equal(same, tokens())
    assert layout.perm_GN.tolist() == order().perm_GN.expand(2, -1).tolist()
    moved(made)
    made.weight_D *= 1e4  # evidence that no place can hold back
    after, layout = made(0, tokens(), order())
    rising = made.evidence(after).diff(dim=1) >= 0
    assert bool((rising if direction == "ascending" else ~rising).all())
    assert not torch.equal(layout.perm_GN[0], layout.perm_GN[1]), "each image has an order of its own"
    assert made(1, after, layout) == (after, layout), "it acts once"


def test_padding_stays_behind() -> None:
    valid_BN = torch.arange(12).expand(2, 12) < 8
    made = moved(DynamicReorder(DynamicReorderSettings(after=1), Context(GRID, width=16)))
    layout = Layout(GRID, order().perm_GN, valid_BN=valid_BN)
    with torch.no_grad():
        _, after = made.eval()(0, tokens(), layout)
        weight_BN = made.exit_weights(0, tokens(), layout)
    assert torch.equal(after.valid_BN, valid_BN)
    assert float(weight_BN[:, 8:].abs().max()) == 0.0


def test_the_exit_is_the_weighted_mean_of_the_normed_patches() -> None:
    made = moved(backbone("mamba", between=DYNAMIC, readout="mean")).eval()
    with torch.no_grad():
        features = made(tokens(), order())
        reading = made.advance(made.start(tokens(), order()), 2)
        short = backbone("mamba", between=None, readout="mean", depth=2).eval()
        short.load_state_dict({n: v for n, v in made.state_dict().items() if n in short.state_dict()})
        patches_BND = short.advance(short.start(tokens(), order())).tokens_BLD
        weight_BN = made.between.exit_weights(1, patches_BND, order())
        expected_BD = (weight_BN[..., None] * made.final_norm(patches_BND)).sum(1)
    assert len(features.exits) == 1
    torch.testing.assert_close(features.exits[0], expected_BD)
    torch.testing.assert_close(reading.exits[0], expected_BD)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mamba", "vit", "longformer", "timm"])
def test_a_pass_taken_apart_is_the_whole(name: str) -> None:
    if name == "timm":
        catalogue, settings = Catalogue.load(), {"model": "vit_tiny_patch16_224", "depth": 4, "between": DYNAMIC}
        made = catalogue.build(ComponentRef("backbone", "timm_vit", settings), where(GRID, patch=16, channels=3))
    else:
        made = backbone(name, between=DYNAMIC, **({"window": 4} if name == "longformer" else {}))
    moved(made).eval()
    given_BND = tokens(3, width=made.width)
    layout = Layout(GRID, torch.stack([torch.randperm(12) for _ in range(3)]), torch.tensor([2, 0, 1]))
    whole = made(given_BND, layout)
    reading = made.advance(made.start(given_BND, layout), 2)
    for images in (slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])):
        part = made.finish(made.advance(reading.part(images)))
        torch.testing.assert_close(part.summary_BD, whole.summary_BD[images], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.exits[0], whole.exits[0][images], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(UsageError, match=r"a model of 2 blocks has none left after 2"):
        backbone("mamba", depth=2, between=DYNAMIC)
    made = backbone("mamba")
    made.between = lambda k, patches_BND, layout: (patches_BND[:, :-1], layout)
    with pytest.raises(UsageError, match="after block 0 it gave 11 tokens back for 12"):
        made(tokens(), order())
    with pytest.raises(UsageError, match="and between can be run patch by patch"):
        backbone("mamba", between=SHUFFLE).init_state(1)


def learner(**between: object) -> Learner:
    """A small model and its task, as a run builds them, with weights that say something."""
    named = {"name": "dynamic_reorder", **between}
    context = where(GRID, patch=2, classes=5)
    made = Catalogue.load().build(
        ComponentRef("backbone", "mamba", {"width": 16, "depth": 3, "state": 4, "between": named}), context
    )
    task = Catalogue.load().build(ComponentRef("task", "classification", {}), context.changed(width=16))
    return moved(Learner(Model(made, GRID, 2, 1), task))  # type: ignore[return-value]


def images(batch: int = 8) -> torch.Tensor:
    return torch.randn(batch, 1, 6, 8, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_early_exit_is_the_exit_below_and_the_whole_model_above_its_threshold() -> None:
    made, layout = learner().eval(), order()
    whole = made.model(images(), layout)
    at_exit_BK, at_end_BK = (made.task.predict(Features((), each)) for each in (whole.exits[0], whole.summary_BD))
    everyone = early_exit(made.model, made.task, images(), layout, 0.0)
    torch.testing.assert_close(everyone.logits_BK, at_exit_BK)
    assert bool(everyone.early_B.all())
    nobody = early_exit(made.model, made.task, images(), layout, 1.1)
    torch.testing.assert_close(nobody.logits_BK, at_end_BK)
    assert not bool(nobody.early_B.any())
    middle = float(everyone.confidence_B.median())
    some = early_exit(made.model, made.task, images(), layout, middle)
    assert 0 < int(some.early_B.sum()) < 8
    torch.testing.assert_close(some.logits_BK, torch.where(some.early_B[:, None], at_exit_BK, at_end_BK))
    assert torch.equal(some.early_B, at_exit_BK.softmax(1).amax(1) >= middle)


def test_early_exit_needs_an_exit() -> None:
    made = learner(learn="order").eval()
    with pytest.raises(UsageError, match="early exit needs a backbone that is read early"):
        early_exit(made.model, made.task, images(), order(), 0.5)


@pytest.mark.parametrize("learn", ["exit", "order", "both"])
def test_the_task_teaches_the_scores(learn: str) -> None:
    """Through the exit, through the order, or both; `auxiliary` is felt where there is an exit, and in training."""
    batch = Batch(images(), torch.arange(8) % 5, torch.arange(8))
    made = learner(learn=learn).train()
    result = made(batch, order())
    result.loss_B.mean().backward()
    assert float(made.model.backbone.between.weight_D.grad.abs().max()) > 0
    evaluated = made.eval()(batch, order()).loss_B
    plain = result.loss_B.detach() - evaluated.detach()
    assert bool((plain > 1e-4).all()) == (learn != "order"), "the exit's loss counts in training only"


def test_a_recipe_names_it() -> None:
    recipe = load_recipe(SMOKE, ["backbone.between={name: dynamic_reorder, after: 1}", "policy=null"])
    assert recipe.resolved()["backbone"]["between"]["direction"] == "ascending"
    with pytest.raises(RecipeError, match=r"backbone.between.*dynamic_reorder"):
        load_recipe(SMOKE, ["backbone.between={name: dynamic_reordr}"])


@torch.no_grad()
def test_it_compiles_whole_and_is_exported() -> None:
    made, given, layout = moved(backbone("mamba", between=DYNAMIC)).eval(), tokens(), order()
    plain = made(given, layout).summary_BD

    class Summary(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = made

        def forward(self, tokens_BND: torch.Tensor, perm_N: torch.Tensor) -> torch.Tensor:
            return self.made(tokens_BND, Layout(GRID, perm_N[None])).summary_BD

    whole = torch.compile(Summary(), fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(given, layout.perm_GN[0]), plain)
    program = torch.export.export(Summary(), (given, layout.perm_GN[0]), strict=False)
    torch.testing.assert_close(program.module()(given, layout.perm_GN[0]), plain, rtol=1e-4, atol=1e-5)
