"""The directions of a scan: what each path reads, where special tokens go, groups, padding, four against ARM's rule."""

from __future__ import annotations

import pytest
import torch
from reorder_mamba.mixer import Mixer
from reorder_mamba.scans import SUFFIXES, average, decay_name, directions, plan_paths
from reorder_mamba.settings import MambaMixerSettings

from reorder_core import Context, Grid, Layout, UsageError
from reorder_core.layout import insert

GRID = Grid(3, 4)
SPECIAL = [(), (6,), (0,), (12,), (0, 5, 13)]
each_special = pytest.mark.parametrize("special", SPECIAL, ids=str)


def random_layout(seed, groups=1, group_B=None, special=(), valid_BN=None):
    draw = torch.Generator().manual_seed(seed)
    perm_GN = torch.stack([torch.randperm(12, generator=draw) for _ in range(groups)])
    return Layout(GRID, perm_GN, group_B, special, valid_BN)


def sequence_of(layout, patches_BND, special_BSD):
    return (
        insert(layout.order(patches_BND), special_BSD, layout.special) if layout.special else layout.order(patches_BND)
    )


def given(layout, batch=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 12, 2, generator=draw), torch.randn(batch, len(layout.special), 2, generator=draw)


def mixer_of(direction, **settings):
    torch.manual_seed(1)
    return Mixer(MambaMixerSettings(state=4, direction=direction, **settings), Context(GRID, width=16))


@each_special
@pytest.mark.parametrize("direction", ["causal", "bidirectional", "four"])
def test_what_is_read_is_put_back(direction, special):
    layout = random_layout(0, special=special)
    steps_BLE = sequence_of(layout, *given(layout))
    for path in plan_paths(direction, layout):
        assert torch.equal(path.put_back(path.read(steps_BLE)), steps_BLE)


@each_special
@pytest.mark.parametrize("which", [(0, 1, 2, 3), (1, 0, 2, 3), (3, 1, 1, 2)], ids=str)
def test_a_cross_scan_reads_each_order_whatever_its_groups(which, special):
    """One order for all, three groups, an order an image: any of them may be the first, in which the tokens stand."""
    made = [
        random_layout(1, 3, torch.tensor([0, 2, 1, 1, 0]), special),
        random_layout(2, special=special),
        random_layout(3, 5, torch.arange(5), special),
        random_layout(4, special=special),
    ]
    layouts = tuple(made[number] for number in which)
    patches_BND, special_BSD = given(layouts[0])
    steps_BLE = sequence_of(layouts[0], patches_BND, special_BSD)
    mirrored = tuple(sorted(layouts[0].length - 1 - place for place in special))
    for r, (path, layout) in enumerate(zip(plan_paths("cross", layouts), layouts, strict=True)):
        if r % 2:
            expected = sequence_of(layout.with_special(mirrored), patches_BND, special_BSD.flip(1))
        else:
            expected = sequence_of(layout, patches_BND, special_BSD)
        assert torch.equal(path.read(steps_BLE), expected)
        assert torch.equal(path.put_back(expected), steps_BLE)


@each_special
@torch.no_grad()
def test_an_order_crossed_with_its_reverse_is_bidirectional(special):
    layout = random_layout(5, 2, torch.tensor([0, 1, 1]), special)
    both, cross = mixer_of("bidirectional"), mixer_of("cross", orders=2)
    cross.load_state_dict(both.state_dict())
    tokens_BLD = torch.randn(3, layout.length, 16)
    expected = both(tokens_BLD, both.plan(layout))
    torch.testing.assert_close(cross(tokens_BLD, cross.plan((layout, layout.reversed()))), expected)


@each_special
@torch.no_grad()
def test_rows_and_columns_crossed_are_four(special):
    rows = Layout(GRID, torch.arange(12)[None], special=special)
    columns = Layout(GRID, torch.arange(12).view(3, 4).T.reshape(1, 12), special=special)
    four, cross = mixer_of("four"), mixer_of("cross")
    cross.load_state_dict(four.state_dict())
    tokens_BLD = torch.randn(3, rows.length, 16)
    layouts = (rows, rows.reversed(), columns, columns.reversed())
    torch.testing.assert_close(cross(tokens_BLD, cross.plan(layouts)), four(tokens_BLD, four.plan(rows)))


def test_four_reads_the_columns_of_the_slots_around_a_middle_token():
    paths = plan_paths("four", random_layout(6, special=(6,)))
    assert paths[2].index.tolist() == [0, 4, 9, 1, 5, 10, 6, 2, 7, 11, 3, 8, 12]
    assert paths[3].index.tolist() == paths[2].index.flip(0).tolist()


def test_columns_are_read_frame_by_frame():
    layout = Layout.fixed(Grid(2, 3, frames=2), torch.arange(12))
    assert plan_paths("four", layout)[2].index.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize("direction", ["causal", "bidirectional", "four", "cross"])
@torch.no_grad()
def test_padding_is_not_looked_at(direction):
    valid_BN = torch.rand(2, 12, generator=torch.Generator().manual_seed(3)) > 0.3
    layout = random_layout(7, special=(6,), valid_BN=valid_BN)
    mixer = mixer_of(direction)
    plan = mixer.plan((layout, *(random_layout(r) for r in range(3))) if direction == "cross" else layout)
    tokens_BLD = torch.randn(2, 13, 16)
    changed_BLD = torch.where(layout.valid_BL.unsqueeze(-1), tokens_BLD, tokens_BLD + 1)
    kept = layout.valid_BL
    torch.testing.assert_close(mixer(changed_BLD, plan)[kept], mixer(tokens_BLD, plan)[kept], rtol=0, atol=1e-6)


def test_valid_steps_follow_their_path():
    valid_BN = torch.arange(12).expand(2, 12) < torch.tensor([[7], [10]])
    layout = random_layout(8, special=(6,), valid_BN=valid_BN)
    for path in plan_paths("four", layout):
        seen = path.read(layout.valid_BL.float().unsqueeze(-1)).squeeze(-1).bool()
        assert torch.equal(path.valid_BL, seen)


@pytest.mark.parametrize(
    ("direction", "count", "says"),
    [
        ("cross", 1, "direction 'cross' reads 4 orders at once, not 1: give it one layout a direction"),
        ("causal", 2, "direction 'causal' reads 1 order at once, not 2: choose direction cross"),
    ],
)
def test_another_number_of_orders_is_refused(direction, count, says):
    with pytest.raises(UsageError, match=says):
        plan_paths(direction, tuple(random_layout(r) for r in range(count)))


def test_orders_of_other_lengths_are_refused():
    with pytest.raises(UsageError, match="of the same patches, not of 12 and 6"):
        plan_paths("cross", (random_layout(0), Layout.fixed(Grid(2, 3), torch.arange(6))), orders=2)
    with pytest.raises(UsageError, match="the columns of a sequence of 6 tokens on a grid of 3x4 are not known"):
        plan_paths("four", Layout.fixed(GRID, torch.arange(6)))


def test_names_are_those_of_arms_mixer():
    assert SUFFIXES[:4] == ("", "_b", "_c", "_c_b")
    assert [decay_name(suffix) for suffix in SUFFIXES[:4]] == ["A_log", "A_b_log", "A_c_log", "A_c_b_log"]
    assert [directions(each, 6) for each in ("causal", "bidirectional", "four", "cross")] == [1, 2, 4, 6]
    own = {"conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"}
    expected = {name.replace(".", f"{suffix}.") for name in own for suffix in SUFFIXES[:4]}
    expected |= {f"D{suffix}" for suffix in SUFFIXES[:4]} | {decay_name(suffix) for suffix in SUFFIXES[:4]}
    assert set(mixer_of("four").state_dict()) == expected | {"in_proj.weight", "out_proj.weight"}
    assert len(mixer_of("cross", orders=8).suffixes) == 8


def test_the_average_does_not_overflow_where_a_sum_would():
    outputs = [torch.full((1, 1, 3), 60000.0, dtype=torch.float16)] * 4
    assert torch.equal(average(outputs), outputs[0])
    several = [torch.randn(2, 3, 4) for _ in range(5)]
    torch.testing.assert_close(average(several), torch.stack(several).mean(0))


def test_gradients_reach_every_direction():
    mixer = mixer_of("cross", orders=3)
    layouts = tuple(random_layout(r, special=(6,)) for r in range(3))
    mixer(torch.randn(2, 13, 16), mixer.plan(layouts)).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
