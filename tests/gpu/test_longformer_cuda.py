"""Sliding-window attention on a CUDA device: compiled flex attention and the banded form, against every score."""

from __future__ import annotations

import pytest
import torch
from reorder_longformer.backbone import LongformerBackbone
from reorder_longformer.flex import why_not_flex
from reorder_longformer.reference import sliding_window_attention_reference
from reorder_longformer.settings import LongformerSettings
from reorder_longformer.sliding_window import choose_backend, sliding_window_attention

from reorder_core import Context, Grid, Layout

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="no CUDA device here")]

MISSING = why_not_flex("cuda", torch.float32, 32) if CUDA else "no CUDA device here"
BACKENDS = [
    "banded",
    pytest.param("flex", marks=pytest.mark.skipif(bool(MISSING), reason=MISSING or "flex attention can run")),
]


def heads(dtype, L=300):
    torch.manual_seed(0)
    return [torch.randn(2, 3, L, 32).to("cuda", dtype).requires_grad_() for _ in range(3)]


def run(function, tensors, *how, **more):
    output = function(*tensors, *how, **more)
    weight = torch.linspace(-1, 1, output.numel(), device="cuda").view_as(output)
    return output.detach(), *torch.autograd.grad((output.float() * weight).sum(), tensors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 5e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("dilation", "places"), [(1, []), (1, [0]), (3, [0, 290])])
def test_equals_the_twin_in_value_and_gradient(backend, dtype, share, padded, dilation, places):
    valid_BL = torch.arange(300, device="cuda").expand(2, 300) < torch.tensor([[300], [291]], device="cuda")
    valid_BL = valid_BL if padded else None
    ours = run(sliding_window_attention, heads(dtype), 20, dilation, places, valid_BL, backend=backend)
    exact = [tensor.detach().double().requires_grad_() for tensor in heads(dtype)]
    twins = run(sliding_window_attention_reference, exact, 20, dilation, places, valid_BL)
    for one, other in zip(ours, twins, strict=True):
        assert (one.double() - other).norm() <= share * other.norm()


def test_auto_takes_flex_attention_where_it_can_run():
    assert choose_backend("auto", torch.device("cuda"), torch.float32, 32) == ("banded" if MISSING else "flex")


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "flex attention can run")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_backbone_gives_the_same_with_both(compiled):
    grid = Grid(12, 12)
    layout = Layout.fixed(grid, torch.randperm(144, generator=torch.Generator().manual_seed(0))).to("cuda")
    tokens_BND = torch.randn(2, 144, 64, device="cuda")
    summaries = []
    for backend in ("banded", "flex"):
        settings = LongformerSettings(width=64, depth=2, heads=2, window=14, attention_backend=backend)
        generator = torch.Generator().manual_seed(0)
        model = LongformerBackbone(settings, Context(grid, width=64, generator=generator)).cuda().eval()
        model = torch.compile(model, fullgraph=True) if compiled else model
        summaries.append(model(tokens_BND, layout).summary_BD)
    assert (summaries[0] - summaries[1]).norm() <= 5e-3 * summaries[0].norm()
