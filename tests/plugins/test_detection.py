"""The task `detection`: its two heads, its loss of each image, its score, and the picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from reorder_detection.decoder import Asked, ConditionalAttention, Seen, sines
from reorder_detection.detections import Detections, wanted
from reorder_detection.fcos_loss import Fields, assign_BL, parts_B3, sides_BLM4
from reorder_detection.picture import draw_detections
from reorder_detection.pyramid import SimplePyramid, on_the_grid, stride_of
from reorder_detection.score import f1
from reorder_detection.settings import DetectionSettings, DetrSettings, FcosSettings
from reorder_detection.task import Detection

from reorder_core import (
    Batch,
    ComponentRef,
    Context,
    DataFacts,
    Draw,
    Features,
    Grid,
    Layout,
    Level,
    RunError,
    RunFacts,
    TaskResult,
    UsageError,
)
from reorder_core.conformance import check_task, context
from reorder_core.interfaces.targets import Objects
from reorder_core.model import Model, sincos2d
from reorder_core.recipe_settings import read_settings

SIDE, PATCH, WIDTH, CLASSES = 32, 8, 24, 5
GRID = Grid(SIDE // PATCH, SIDE // PATCH)
CPU = torch.device("cpu")
NONE = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
HEADS: list[dict[str, Any]] = [
    {"kind": "fcos", "channels": 32, "strides": [0.5, 1], "convolutions": 1},
    {"kind": "detr", "queries": 6, "layers": 2, "width": 16, "heads": 2, "classes": "focal"},
    {"kind": "detr", "queries": 6, "layers": 2, "width": 16, "heads": 2, "anchors": False},
]
each_head = pytest.mark.parametrize("head", HEADS, ids=["fcos", "detr", "detr as published"])
each_detr = pytest.mark.parametrize("head", HEADS[1:], ids=["anchors", "as published"])


def where(**changes: Any) -> Context:
    return context(GRID, patch=PATCH, width=WIDTH, classes=CLASSES, target="boxes").changed(**changes)


def task_of(head: dict[str, Any], **changes: Any) -> Detection:
    torch.manual_seed(0)
    return Detection(DetectionSettings(head=head), where(**changes)).eval()


def objects_of(count: int, draw: torch.Generator) -> Objects:
    corner_O2 = torch.rand(count, 2, generator=draw) * (SIDE - 16)
    boxes_O4 = torch.cat([corner_O2, corner_O2 + 6 + torch.rand(count, 2, generator=draw) * 10], 1)
    label_O = torch.randint(CLASSES, (count,), generator=draw)
    return Objects(boxes_O4, label_O, crowd_O=torch.rand(count, generator=draw) < 0.25)


def batch_of(images: int, seed: int = 1) -> Batch:
    """Images with none to four objects, some of which are crowds."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 1, SIDE, SIDE, generator=draw)
    return Batch(pixels, [objects_of((image + 1) % 5, draw) for image in range(images)], torch.arange(images))


def easy_batch(images: int) -> Batch:
    """One object an image."""
    batch = batch_of(images)
    draw = torch.Generator().manual_seed(5)
    target = [Objects(each.boxes_O4, each.label_O) for each in (objects_of(1, draw) for _ in range(images))]
    return Batch(batch.images_BCHW, target, batch.index_B)


def run(images_BCHW: torch.Tensor, order: Layout) -> Features:
    """Stands for a backbone that is blind to the order: tokens of each patch alone, in the order that is asked for."""
    patches_BND = images_BCHW.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(4).flatten(2, 3)[:, 0, :, :WIDTH]
    tokens_BND = order.order(patches_BND)
    return Features((Level(tokens_BND, order),), tokens_BND.mean(1))


def row_major() -> Layout:
    return Layout.fixed(GRID, torch.arange(GRID.size))


def small_batch(images: int) -> Batch:
    every = easy_batch(images)
    target = [Objects(each.boxes_O4 / 4, each.label_O) for each in every.target]
    return Batch(every.images_BCHW[:, :, :8, :8], target, every.index_B)


@each_head
def test_contract(head: dict[str, Any]) -> None:
    """Steps of 0.05, which `learnable` takes, are too long for FCOS's rectified distances: it learns below."""
    small = context("2x2", patch=4, width=WIDTH, classes=CLASSES, target="boxes")
    learnable = head["kind"] == "detr"
    check_task("detection", {"head": head}, batch=small_batch, where=small, score_is_mean=False, learnable=learnable)


def test_a_few_images_are_learned_by_heart() -> None:
    task, batch = task_of({**HEADS[0], "strides": [0.5]}), batch_of(4)
    tokens_BND = torch.nn.Parameter(torch.randn(4, GRID.size, WIDTH))
    features = Features((Level(tokens_BND, row_major()),), tokens_BND.mean(1))
    descent = torch.optim.Adam([tokens_BND, *task.parameters()], lr=5e-3)
    losses = []
    for _ in range(100):
        result = task.step(lambda images, order: features, batch, row_major())
        descent.zero_grad()
        result.loss_B.mean().backward()
        descent.step()
        losses.append(float(result.loss_B.detach().mean()))
    metrics = task.metrics()
    metrics.update(task.step(lambda images, order: features, batch, row_major()), batch)
    assert losses[-1] < 0.5 * losses[0]
    assert metrics.compute()["map50"] > 0.9


@each_head
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_of_an_image_is_that_of_it_alone(head: dict[str, Any], training: bool) -> None:
    task, batch = task_of(head).train(training), batch_of(9)
    loss_B = task.step(run, batch, row_major()).loss_B
    assert loss_B.isfinite().all()
    for image in range(9):
        one = Batch(batch.images_BCHW[image : image + 1], batch.target[image : image + 1], batch.index_B[:1])
        torch.testing.assert_close(task.step(run, one, row_major()).loss_B[0], loss_B[image], rtol=1e-5, atol=1e-5)


@given(st.permutations(range(GRID.size)), st.booleans())
@settings(max_examples=15, deadline=None)
def test_no_order_changes_what_is_said_on_the_grid(order: list[int], each_its_own: bool) -> None:
    """For a vision transformer without a class token's order effects: boxes, losses, scores."""
    backbone = context(GRID, patch=PATCH, width=WIDTH).resolve(
        ComponentRef("backbone", "vit", {"width": WIDTH, "depth": 1, "heads": 2, "readout": "mean"})
    )
    torch.manual_seed(0)
    model, task, batch = Model(backbone, GRID, PATCH, 1).eval(), task_of(HEADS[0]), batch_of(4)
    perm_N = torch.tensor(order)
    other = Layout.fixed(GRID, perm_N)
    if each_its_own:
        other = Layout(GRID, torch.stack([perm_N, perm_N.flip(0)]), torch.tensor([0, 1, 1, 0]))
    with torch.no_grad():
        one, two = (task.step(model, batch, layout) for layout in (row_major(), other))
    torch.testing.assert_close(one.loss_B, two.loss_B, rtol=1e-4, atol=1e-4)
    for here, there in zip(one.prediction, two.prediction, strict=True):
        torch.testing.assert_close(here.boxes_O4, there.boxes_O4, rtol=1e-3, atol=1e-3)
        assert torch.equal(here.label_O, there.label_O)


@given(st.permutations(range(GRID.size)))
@settings(max_examples=20, deadline=None)
def test_tokens_go_back_to_their_places(order: list[int]) -> None:
    layout = Layout.fixed(GRID, torch.tensor(order))
    patches_BND = torch.randn(2, GRID.size, 3)
    map_BDhw = on_the_grid(Level(layout.order(patches_BND), layout))
    assert torch.equal(map_BDhw, patches_BND.transpose(1, 2).reshape(2, 3, GRID.rows, GRID.columns))


@pytest.mark.parametrize("seed", range(4))
def test_boxes_survive_being_asked_for_and_read_back(seed: int) -> None:
    """A head that says exactly what it is asked: every object is found once, in its box, with a score near 1."""
    task = task_of({**HEADS[0], "strides": [0.25, 0.5], "radius": 8})
    draw = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[0.0, 0], [16, 0], [0, 16], [16, 16]])[: seed + 1]
    boxes_O4 = torch.cat([corners + 1, corners + 15], 1) + torch.rand(seed + 1, 4, generator=draw)
    objects = Objects(boxes_O4, torch.arange(seed + 1))
    locations = task.head(run(batch_of(1).images_BCHW, row_major())).locations
    which_L = assign_BL(locations, boxes_O4[None], 8)[0]
    sides = sides_BLM4(locations.centre_L2, boxes_O4[None])[0]
    distances_L4 = sides[torch.arange(len(which_L)), which_L] / locations.stride_L[:, None]
    sure = torch.full((1, len(which_L), CLASSES), -20.0)
    sure[0, which_L >= 0, objects.label_O[which_L[which_L >= 0]]] = 20.0
    fields = Fields(sure, distances_L4[None], torch.full((1, len(which_L)), 20.0), locations)
    (found,) = task.head.decode(fields)
    order = found.label_O.argsort()
    torch.testing.assert_close(found.boxes_O4[order], boxes_O4, rtol=1e-4, atol=1e-4)
    assert found.score_O.min() > 0.99
    assert f1(found, objects) == 1
    parts = parts_B3(fields, wanted([objects], CPU, CLASSES), 8)[0]
    assert parts[:2].max() < 1e-4, "classes and boxes cost nothing; centredness keeps its entropy"


def test_a_crowd_is_no_target_and_costs_nothing_where_it_lies() -> None:
    task = task_of(HEADS[0])
    crowd = Objects(torch.tensor([[0.0, 0, 16, 32]]), torch.tensor([2]), crowd_O=torch.tensor([True]))
    said = task.head(run(batch_of(1).images_BCHW, row_major()))
    inside_L = said.locations.centre_L2[:, 0] < 16
    losses = []
    for logit in (-5.0, 5.0):
        logits_BLK = said.logits_BLK.masked_fill(inside_L[None, :, None], logit)
        fields = Fields(logits_BLK, said.distances_BL4, said.centredness_BL, said.locations)
        losses.append(task.head.loss_B(fields, wanted([crowd], CPU, CLASSES)))
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0] > 0, "the other half of the image is background"


def test_what_f1_counts() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    two = Objects(boxes, torch.tensor([1, 2]))

    def said(boxes_O4: torch.Tensor, labels: list[int], scores: list[float]) -> Detections:
        return Detections(boxes_O4, torch.tensor(scores), torch.tensor(labels))

    empty = said(torch.zeros(0, 4), [], [])
    assert f1(said(boxes, [1, 2], [1.0, 0.5]), two) == 1
    assert f1(empty, NONE) == 1
    assert f1(said(boxes, [1, 2], [1.0, 1.0]), NONE) == 0
    assert f1(empty, two) == 0
    assert f1(said(boxes, [1, 1], [1.0, 0.5]), two) == pytest.approx(0.5), "another class is wrong, and one is missed"
    assert f1(said(boxes[[0, 0, 1]], [1, 1, 2], [0.9, 0.8, 0.7]), two) == pytest.approx(4 / 5), "twice is once wrong"
    assert f1(said(boxes + 4, [1, 2], [0.9, 0.8]), two) == 0, "an IoU below one half"
    crowd = Objects(torch.tensor([[0.0, 0, 30, 30]]), torch.tensor([1]), crowd_O=torch.tensor([True]))
    assert f1(said(boxes, [1, 1], [0.9, 0.8]), crowd) == 1, "in a crowd nothing is wrong"
    assert f1(said(boxes, [1, 2], [0.9, 0.8]), crowd) == 0, "but for another class"


def test_a_hierarchy_gives_its_own_maps() -> None:
    pyramid = SimplePyramid(16, 32, (0.5, 1, 2, 4), Grid(8, 8))
    grids = {grid: torch.randn(2, grid.size, width) for grid, width in ((Grid(8, 8), 8), (Grid(4, 4), 16))}
    line = Level(torch.randn(2, 32, 16), Layout.fixed(Grid(1, 32), torch.arange(32)))
    levels = [Level(tokens, Layout.fixed(grid, torch.arange(grid.size))) for grid, tokens in grids.items()]
    maps = pyramid(Features((*levels, line), torch.zeros(2, 16)))
    assert [tuple(each.shape) for each in maps] == [(2, 32, side, side) for side in (16, 8, 4, 2)]
    source = pyramid._sources(Features((*levels, line), torch.zeros(2, 16)))
    assert sorted(source) == [1, 2]
    assert (source[1][:, 8:] == 0).all(), "the narrower level is filled up with zeros"
    with pytest.raises(UsageError, match=r"task\.head\.strides: .* keeps the grid"):
        pyramid(Features((line,), torch.zeros(2, 16)))


@each_detr
def test_detr_reads_the_order_by_slots_and_not_by_places(head: dict[str, Any]) -> None:
    batch, perm_N = batch_of(3), torch.randperm(GRID.size, generator=torch.Generator().manual_seed(0))
    other = Layout(GRID, torch.stack([perm_N, perm_N.flip(0)]), torch.tensor([0, 1, 0]))
    for positions, blind in (("slot", False), ("place", True), ("none", True)):
        task = task_of({**head, "positions": positions})
        with torch.no_grad():
            one, two = (task.predict(run(batch.images_BCHW, layout)) for layout in (row_major(), other))
        assert torch.allclose(one, two, atol=1e-4) == blind


@each_detr
def test_detr_does_not_look_at_padding(head: dict[str, Any]) -> None:
    batch, valid_BN = batch_of(3), torch.ones(3, GRID.size, dtype=torch.bool)
    valid_BN[1, 5:] = False
    layout = Layout(GRID, torch.arange(GRID.size)[None], torch.zeros(3, dtype=torch.int64), valid_BN=valid_BN)
    tokens_BND = run(batch.images_BCHW, row_major()).levels[-1].tokens_BND
    other_BND = torch.where(valid_BN[:, :, None], tokens_BND, 7.0)
    task = task_of(head)
    with torch.no_grad():
        one, two = (task.predict(Features((Level(each, layout),), each[:, 0])) for each in (tokens_BND, other_BND))
    torch.testing.assert_close(one, two)


def test_anchors_are_looked_around_by_place_and_moved() -> None:
    """Untrained, the boxes are the anchors; the sines of a cell's centre are those of the grid's position there."""
    task, batch = task_of(HEADS[1]), batch_of(2)
    head = task.head
    torch.nn.init.zeros_(head.to_box[-1].weight)
    said = head(run(batch.images_BCHW, row_major()))
    torch.testing.assert_close(said[-1].boxes_BQ4[0], head.anchor_Q4[:6].sigmoid())
    grid = Grid(3, 5)
    places_N2 = torch.tensor([[row, column] for row in range(3) for column in range(5)])
    torch.testing.assert_close(sines(places_N2, 16), sincos2d(grid, 16))
    head.grid = Grid(5, 9)  # in cells of 2: 3 rows and 5 columns, the last ones incomplete
    centre_2 = torch.tensor([(3 + 0.5) * 2 / 9, (1 + 0.5) * 2 / 5])  # across, down: row 1, column 3
    box_114 = torch.cat([centre_2, torch.tensor([0.2, 0.2])]).logit()[None, None]
    torch.testing.assert_close(head._around(box_114, 2, True).centre_BQE[0, 0], sincos2d(grid, 16)[1 * 5 + 3])


def test_each_layer_moves_the_anchors_and_learns_from_its_own_move() -> None:
    task, batch = task_of({**HEADS[1], "classes": "softmax"}).train(), batch_of(2)
    head = task.head
    torch.nn.init.zeros_(head.to_box[-1].weight)
    torch.nn.init.constant_(head.to_box[-1].bias, 0.25)
    one, two = head(run(batch.images_BCHW, row_major()))
    torch.testing.assert_close(one.boxes_BQ4[0], (head.anchor_Q4 + 0.25).sigmoid())
    torch.testing.assert_close(two.boxes_BQ4[0], (head.anchor_Q4 + 0.5).sigmoid())
    own = torch.autograd.grad(two.boxes_BQ4.sum(), head.anchor_Q4, allow_unused=True)[0]
    assert own is None or not own.any(), "a later layer's box is no lever on the anchors"
    assert torch.autograd.grad(head(run(batch.images_BCHW, row_major()))[0].boxes_BQ4.sum(), head.anchor_Q4)[0].all()


@each_detr
def test_one_layer_has_no_idle_parameters(head: dict[str, Any]) -> None:
    """Processes that share gradients wait for every parameter's."""
    task = task_of({**head, "layers": 1}).train()
    task.step(run, batch_of(3), row_major()).loss_B.sum().backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []


def test_focal_loss_starts_with_rare_classes() -> None:
    said = task_of(HEADS[1]).predict(run(batch_of(2).images_BCHW, row_major()))
    assert said[..., 4:].mean() < 0.03


@pytest.mark.parametrize(
    "patches", [Grid(8, 8), Grid(5, 5), Grid(9, 5), Grid(10, 7), Grid(17, 13), Grid(1, 6)], ids=str
)
@pytest.mark.parametrize("factor", [2, 3])
def test_the_stride_of_a_grid_is_found_again(patches: Grid, factor: int) -> None:
    grid, stride = patches, 1
    while grid.size > 4:
        grid, stride = Grid(-(-grid.rows // factor), -(-grid.columns // factor)), stride * factor
        found = stride_of(grid, patches)
        assert found is not None
        assert (-(-patches.rows // found), -(-patches.columns // found)) == (grid.rows, grid.columns)
        assert found == stride or factor == 3, "powers of 2 go before others"
    assert stride_of(Grid(1, patches.size), patches) is None or patches.rows == 1


def test_conditional_attention_adds_what_content_and_places_find() -> None:
    """Concatenating queries and keys adds their products: two scores, one softmax."""
    torch.manual_seed(0)
    attention = ConditionalAttention(8, 2, 0.0)
    state, centre, key, value, place = (torch.randn(2, many, 8) for many in (3, 3, 5, 5, 5))
    found = attention(state, Asked(state, centre), Seen(key, value, place[:1], None))
    sum_of_both = torch.zeros(2, 2, 3, 5)
    for left, right in (
        (attention.query(state), attention.key(key)),
        (attention.centre(centre * attention.scale(state)), attention.place(place[:1])),
    ):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            sum_of_both[:, head] += left[..., part] @ right[..., part].transpose(1, 2)
    weights = (sum_of_both / 8**0.5).softmax(3)
    values = torch.stack([attention.value(value)[..., 4 * head : 4 * head + 4] for head in range(2)], 1)
    expected = attention.out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, expected)


def test_anchors_need_the_grid() -> None:
    line = Layout.fixed(Grid(1, GRID.size), torch.arange(GRID.size))
    features = Features((Level(torch.randn(2, GRID.size, WIDTH), line),), torch.zeros(2, WIDTH))
    with pytest.raises(UsageError, match=r"task\.head\.anchors: .* set anchors to false"):
        task_of(HEADS[1]).head(features)
    task_of({**HEADS[2], "positions": "slot"}).head(features)


def test_grids_are_refused_before_anything_is_read() -> None:
    """A hierarchy that merges in the sequence ends on a line, and has one map only."""
    where_ = context(GRID, patch=PATCH, width=WIDTH)
    settings_ = {"widths": [16, WIDTH], "depths": [1, 1], "mixer": {"name": "mamba", "state": 2}}
    line, grid = (
        Model(where_.resolve(ComponentRef("backbone", "hierarchical", {**settings_, "merge": merge})), GRID, PATCH, 1)
        for merge in ("sequence", "grid")
    )
    for head in HEADS:
        task_of(head).refuse_model(grid)
    with pytest.raises(UsageError, match=r"task\.head\.anchors"):
        task_of(HEADS[1]).refuse_model(line)
    with pytest.raises(UsageError, match=r"task\.head\.anchors: they and positions: place"):
        task_of(HEADS[2]).refuse_model(line)
    task_of({**HEADS[2], "positions": "slot"}).refuse_model(line)
    task_of(HEADS[0]).refuse_model(line)


class _Counts:
    """A split that counts its objects."""

    def __init__(self, *counts: int) -> None:
        self._counts = counts

    def object_counts(self) -> list[tuple[str, int]]:
        return [(f"{number}.png", count) for number, count in enumerate(self._counts)]


def test_detr_finds_too_few_queries_before_the_first_step() -> None:
    dataset = SimpleNamespace(train=_Counts(0, 3), validation=_Counts(7, 8, 1))
    task_of({**HEADS[1], "queries": 8}, dataset=dataset)
    with pytest.raises(
        UsageError, match=r"validation image 1\.png has 8 objects, and task\.head\.queries is 7: raise it"
    ):
        task_of({**HEADS[1], "queries": 7}, dataset=dataset)


def test_detr_names_the_setting_when_it_has_too_few_queries() -> None:
    task = task_of({**HEADS[1], "queries": 1})
    target = [Objects(torch.tensor([[0.0, 0, 9, 9]] * 3), torch.tensor([0, 1, 2]))]
    batch = Batch(torch.zeros(1, 1, SIDE, SIDE), target, torch.arange(1))
    with pytest.raises(UsageError, match=r"3 objects, and task\.head\.queries is 1: raise it"):
        task.step(run, batch, row_major())


@each_head
def test_a_policys_draw_is_read_as_its_layout(head: dict[str, Any]) -> None:
    torch.manual_seed(1)
    backbone = context(GRID, patch=PATCH, width=WIDTH).resolve(
        ComponentRef("backbone", "mamba", {"width": WIDTH, "depth": 1, "state": 2})
    )
    model, task, batch = Model(backbone, GRID, PATCH, 1), task_of(head), batch_of(4)
    perm_GN = torch.stack([torch.arange(GRID.size), torch.randperm(GRID.size)])
    soft_NN = torch.rand(GRID.size, GRID.size, requires_grad=True)
    hard = Draw(perm_GN, torch.tensor([0, 1, 1, 0]))
    one, two = (task.step(model, batch, order).loss_B for order in (hard, hard.layout(GRID)))
    torch.testing.assert_close(one, two)
    soft = Draw(perm_GN[:1], torch.zeros(4, dtype=torch.int64), soft=lambda tokens: soft_NN.softmax(1) @ tokens)
    task.step(model, batch, soft).loss_B.mean().backward()
    assert soft_NN.grad is not None
    assert soft_NN.grad.abs().max() > 0


@each_head
def test_losses_are_float32_and_near_under_autocast(head: dict[str, Any]) -> None:
    task, batch = task_of(head), batch_of(5)
    plain = task.step(run, batch, row_major())
    with torch.autocast("cpu", torch.bfloat16):
        cast = task.step(run, batch, row_major())
        assert task.score_B(cast, batch).dtype == torch.float32
    assert cast.loss_B.dtype == torch.float32
    torch.testing.assert_close(cast.loss_B, plain.loss_B, rtol=0.1, atol=0.1)


@each_head
def test_what_an_exported_model_says_is_what_is_decoded(head: dict[str, Any]) -> None:
    task, batch = task_of(head).requires_grad_(False), batch_of(2)
    features = run(batch.images_BCHW, row_major())
    table_BLK = task.predict(features)
    assert table_BLK.shape[2] == 4 + CLASSES
    first = task.step(run, batch, row_major()).prediction[0]
    assert float(first.score_O.max()) == pytest.approx(float(table_BLK[0, :, 4:].max()))
    assert first.score_O.tolist() == sorted(first.score_O.tolist(), reverse=True)


@each_head
def test_a_head_is_exported_for_any_number_of_images(head: dict[str, Any]) -> None:
    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.task = task_of(head)

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return self.task.predict(run(images_BCHW, row_major()))

    alone, three = Alone(), batch_of(3).images_BCHW
    exported = torch.export.export(alone, (three,), dynamic_shapes=({0: torch.export.Dim("B")},)).module()
    for images_BCHW in (three, batch_of(5).images_BCHW):
        torch.testing.assert_close(exported(images_BCHW), alone(images_BCHW), rtol=1e-4, atol=1e-4)


def test_the_picture(tmp_path: Path) -> None:
    task, batch = task_of(HEADS[0]), batch_of(6)
    task.names = ("nought", "one")
    said = [Detections(each.boxes_O4, torch.ones(len(each)), each.label_O) for each in batch.target]
    layout = Layout(GRID, torch.stack([torch.arange(16), torch.arange(16).flip(0)]), torch.arange(6) % 2)
    for name, shown in (("a", layout), ("b", None)):
        task.draw_prediction(batch, TaskResult(torch.zeros(6), said), shown, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size[0] > 800


def test_names_of_boxes_that_touch_the_edge_stay_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("reorder_detection.picture.save_figure", lambda figure, path, dpi: drawn.append(figure))
    box_14 = torch.tensor([[4.0, 0.0, 20.0, float(SIDE)]])
    true, said = Objects(box_14, torch.tensor([0])), Detections(box_14, torch.ones(1), torch.tensor([1]))
    draw_detections(torch.rand(1, 1, SIDE, SIDE), [true], [said], ("nought", "one"), None, tmp_path / "a.png")
    texts = {text.get_text(): text.get_va() for text in drawn[0].axes[0].texts}
    assert texts == {"nought": "bottom", "one 100%": "top"}


def test_refusals() -> None:
    facts = DataFacts(SIDE, SIDE, 1, target="mask", classes=CLASSES)
    run_facts = RunFacts(facts, GRID, PATCH, 8, "learned")
    (problem,) = DetectionSettings().problems(run_facts)
    assert "this data has 'mask': set data.target to boxes" in problem.message
    uneven = DetectionSettings(head=DetrSettings(kind="detr", width=16, heads=3))
    boxes = RunFacts(DataFacts(SIDE, SIDE, 1, target="boxes", classes=CLASSES), GRID, PATCH, 8, "learned")
    assert [problem.key for problem in uneven.problems(boxes)] == ["head.heads"]
    assert list(DetectionSettings().problems(boxes)) == []
    with pytest.raises(UsageError, match=r"set data\.target to boxes"):
        Detection(DetectionSettings(), Context(GRID, width=WIDTH))
    with pytest.raises(ValidationError, match=r"take some of 0\.25, 0\.5, 1, 2, 4, 8"):
        FcosSettings(strides=(3,))
    with pytest.raises(ValidationError, match="the finest first"):
        FcosSettings(strides=(2, 1))
    with pytest.raises(ValidationError, match="queries"):
        DetectionSettings(head={"kind": "fcos", "queries": 3})  # type: ignore[arg-type]
    beyond = Objects(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([CLASSES]), name="photo.jpg")
    with pytest.raises(RunError, match=r"photo\.jpg has an object of a class beyond the 5"):
        wanted([beyond], CPU, CLASSES)


def test_a_misspelt_key_of_a_head_is_compared_with_that_heads() -> None:
    for head, near in (("detr, querys: 3", "queries"), ("fcos, stride: [1]", "strides")):
        _, (complaint,) = read_settings(DetectionSettings, yaml.safe_load(f"head: {{kind: {head}}}"), (), {})
        assert complaint.message == f"no such setting; did you mean '{near}'?"
