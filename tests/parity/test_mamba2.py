"""Mamba-2: the chunked scan against its slow twin, the mixer and the model against those of transformers."""

from __future__ import annotations

import itertools
import logging
import sys
from types import ModuleType

import pytest
import torch
from reorder_mamba import dual_chunks
from reorder_mamba import state_space_dual as module
from reorder_mamba.mamba2_backbone import Mamba2Backbone
from reorder_mamba.mamba2_mixer import Mamba2Mixer
from reorder_mamba.mamba2_reference import state_space_dual_reference
from reorder_mamba.mamba2_settings import Mamba2MixerSettings, Mamba2Settings
from reorder_mamba.state_space_dual import state_space_dual
from torch.nn import functional

from reorder_core import Context, Grid, Layout, RunError, UsageError

GRID = Grid(3, 7)


def inputs(B, L, H, P, G, N, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = {
        "x_BLHP": normal(B, L, H, P),
        "dt_BLH": functional.softplus(normal(B, L, H) - 1),
        "A_H": -1 - 15 * torch.rand(H, generator=generator, dtype=torch.float64),
        "B_BLGN": 0.5 * normal(B, L, G, N),
        "C_BLGN": 0.5 * normal(B, L, G, N),
        "D_H": normal(H),
        "z_BLHP": normal(B, L, H, P),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in values.items()}


def output_and_gradients(function, values, **options):
    y = function(**values, **options)
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).to(y.dtype)
    return y.detach(), torch.autograd.grad((y * weight).sum(), list(values.values()))


@pytest.mark.parametrize(("skip", "gate"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("L", [1, 8, 21])
def test_equals_the_twin_in_value_and_gradient(L, groups, skip, gate):
    values = inputs(B=3, L=L, H=4, P=3, G=groups, N=5)
    for name, used in (("D_H", skip), ("z_BLHP", gate)):
        if not used:
            del values[name]
    twins = output_and_gradients(state_space_dual_reference, values)
    for chunk in (1, 4, 8, 64):
        ours = output_and_gradients(state_space_dual, values, chunk=chunk, backend="torch")
        torch.testing.assert_close(ours, twins, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("L", [1, 7, 10])
def test_gradcheck(L):
    values = inputs(B=2, L=L, H=2, P=2, G=1, N=3)

    def run(*tensors):
        return state_space_dual(*tensors, chunk=4, backend="torch")

    assert torch.autograd.gradcheck(run, tuple(values.values()))


def test_blocks_of_images_and_of_chunks_are_put_together(monkeypatch):
    """On a CPU a few images and chunks are taken at a time: with a tiny budget, one image and one chunk."""
    values = inputs(B=3, L=23, H=2, P=3, G=1, N=4)
    whole = output_and_gradients(state_space_dual, values, chunk=5, backend="torch")
    monkeypatch.setattr(dual_chunks, "_BLOCK", 1)
    pieces = output_and_gradients(state_space_dual, values, chunk=5, backend="torch")
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


def test_chunks_are_as_even_as_the_length_allows():
    def lengths(L):
        return [steps.stop - steps.start for steps, _ in dual_chunks._segments(L, 64, 1)]

    assert lengths(196) == [49] * 4
    assert lengths(197) == [50, 50, 50, 47]
    assert lengths(64) == [64]
    assert lengths(5) == [5]
    for L in range(1, 300):
        assert sum(lengths(L)) == L
        assert len(lengths(L)) == dual_chunks.chunk_count(L, 64)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 9, 2, 1, 2, 3), (2, 150, 6, 16, 2, 8)])
def test_float32_stays_near_float64(shape):
    exact = inputs(*shape)
    single = {name: value.detach().float().requires_grad_() for name, value in exact.items()}
    y_exact, gradients_exact = output_and_gradients(state_space_dual_reference, exact)
    y, gradients = output_and_gradients(state_space_dual, single, backend="torch")
    torch.testing.assert_close(y.double(), y_exact, rtol=1e-5, atol=1e-5)
    for ours, reference in zip(gradients, gradients_exact, strict=True):
        assert (ours.double() - reference).norm() <= 2e-5 * reference.norm() + 1e-6


def test_a_slow_step_after_very_fast_ones_keeps_its_decay():
    """Sums of exponents grow to tens of thousands, where float32 has no digits left for a step of 0.1."""
    values = inputs(1, 40, 2, 3, 1, 4)
    step = values["dt_BLH"].detach().clone()
    step[:, :20] = 300.0
    step[:, 20:] = 0.01
    values["dt_BLH"] = step.requires_grad_()
    single = {name: value.detach().float().requires_grad_() for name, value in values.items()}
    y_exact, _ = output_and_gradients(state_space_dual_reference, values)
    y, gradients = output_and_gradients(state_space_dual, single, backend="torch")
    torch.testing.assert_close(y[:, 20:].double(), y_exact[:, 20:], rtol=1e-5, atol=1e-5)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_scanned_in_float32(dtype):
    half = {name: value.detach().to(dtype).requires_grad_() for name, value in inputs(2, 150, 2, 8, 1, 4).items()}
    single = {name: value.detach().float().requires_grad_() for name, value in half.items()}
    y, gradients = output_and_gradients(state_space_dual, half, backend="torch")
    y_single, _ = output_and_gradients(state_space_dual, single, backend="torch")
    assert y.dtype == dtype
    assert all(gradient.dtype == dtype for gradient in gradients)
    torch.testing.assert_close(y, y_single.to(dtype))


def test_autocast_does_not_reach_the_scan():
    values = inputs(2, 20, 2, 8, 1, 4, torch.float32)
    plain = output_and_gradients(state_space_dual, values, backend="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = output_and_gradients(state_space_dual, values, backend="torch")
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_inputs_that_are_views_and_need_no_gradient():
    values = {name: value.detach() for name, value in inputs(4, 12, 2, 6, 1, 4).items()}
    wide = {name: torch.stack((v, v), dim=-1).flatten(-2)[..., ::2] for name, v in values.items()}
    y = state_space_dual(**wide, backend="torch")
    torch.testing.assert_close(y, state_space_dual_reference(**values))
    assert not y.requires_grad


def test_the_inputs_are_left_as_they_were():
    values = inputs(2, 12, 2, 4, 1, 3)
    before = {name: value.detach().clone() for name, value in values.items()}
    output_and_gradients(state_space_dual, values, backend="torch")
    for name, value in values.items():
        assert torch.equal(value, before[name]), name


def test_no_matrix_of_weights_is_kept_for_the_backward_pass():
    B, L, H, P, N = 2, 128, 4, 16, 8
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        state_space_dual(**inputs(B, L, H, P, 1, N), backend="torch")
    assert max(kept) == B * L * H * P
    assert B * (L // 64) * H * N * P in kept  # the states before chunks


def test_operators_hold_to_torchs_rules_for_operators():
    values = inputs(2, 11, 4, 3, 2, 2)
    args = (*(values[name] for name in ("x_BLHP", "dt_BLH", "A_H", "B_BLGN", "C_BLGN")), 4)
    torch.library.opcheck(
        dual_chunks.dual, args, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )
    plain = [arg.detach() for arg in args[:-1]]
    y_BLHP, start_BKGNE = dual_chunks.dual(*plain, 4)
    torch.library.opcheck(
        dual_chunks.dual_backward,
        (y_BLHP, *plain, y_BLHP, start_BKGNE, 4),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_written_out_is_the_same_scan():
    values = inputs(2, 23, 4, 3, 2, 2)
    args = [values[name].detach() for name in ("x_BLHP", "dt_BLH", "A_H", "B_BLGN", "C_BLGN")]
    torch.testing.assert_close(dual_chunks.dual_written_out(*args, 5), dual_chunks.dual(*args, 5)[0])


def test_auto_says_once_what_runs(caplog):
    module._say_once.cache_clear()
    values = inputs(1, 3, 2, 2, 1, 2)
    with caplog.at_level(logging.INFO, logger="reorder_mamba.state_space_dual"):
        state_space_dual(**values)
        state_space_dual(**values)
    assert [record.getMessage() for record in caplog.records] == [
        "state space dual on cpu: matrix products in pure torch"
    ]


def test_mamba_ssm_by_name_refuses_what_it_can_not_run():
    with pytest.raises(RunError, match=r"need tensors on a CUDA device, not on cpu; choose scan 'auto' or 'torch'"):
        state_space_dual(**inputs(1, 3, 2, 2, 1, 2), backend="mamba_ssm")


@pytest.mark.parametrize(
    ("found", "says"),
    [(None, "can not be imported here"), (ModuleType("ssd_combined"), "has no mamba_chunk_scan_combined")],
)
def test_what_an_installed_mamba_ssm_lacks_is_said(monkeypatch, found, says):
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.triton.ssd_combined", found)
    module.why_not_mamba_ssm_kernels.cache_clear()
    try:
        assert says in module.why_not_mamba_ssm_kernels("cuda", torch.float32)
        assert "no float64" in module.why_not_mamba_ssm_kernels("cuda", torch.float64)
    finally:
        module.why_not_mamba_ssm_kernels.cache_clear()


def test_mamba_ssms_kernels_are_called_as_they_want_it(monkeypatch):
    """Their function, played by the twin on a CPU: every argument arrives in its place."""

    def combined(x, dt, A, B, C, chunk_size, D=None, z=None):
        assert chunk_size == 256
        assert dt.dtype == A.dtype == torch.float32
        return state_space_dual_reference(x, dt, A, B, C, D, z)

    kernels = ModuleType("mamba_ssm.ops.triton.ssd_combined")
    kernels.mamba_chunk_scan_combined = combined
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.triton.ssd_combined", kernels)
    monkeypatch.setattr(module, "choose_backend", lambda *_: "mamba_ssm")
    values = inputs(2, 9, 4, 3, 2, 4, torch.float32)
    torch.testing.assert_close(state_space_dual(**values), state_space_dual_reference(**values))


def test_groups_that_do_not_divide_the_heads_are_refused():
    values = inputs(1, 3, 3, 2, 2, 2)
    with pytest.raises(UsageError, match="3 heads can not share B and C in 2 groups"):
        state_space_dual(**values)


# transformers


def theirs(**changes):
    transformers = pytest.importorskip("transformers")
    from transformers.utils import logging as their_logging

    their_logging.set_verbosity_error()  # it says at length that it runs without mamba_ssm
    settings = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "state_size": 6,
        "expand": 2,
        "head_dim": 8,
        "num_heads": 6,
        "n_groups": 1,
        "conv_kernel": 4,
        "vocab_size": 5,
        "chunk_size": 8,
        "residual_in_fp32": False,
    }
    return transformers.Mamba2Config(**(settings | changes))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_mixer_equals_transformers_with_the_same_weights(groups):
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as TheirMixer

    torch.manual_seed(0)
    reference = TheirMixer(theirs(n_groups=groups), layer_idx=0)
    ours = Mamba2Mixer(Mamba2MixerSettings(state=6, head_width=8, groups=groups, chunk=8), Context(GRID, width=24))
    ours.load_state_dict(reference.state_dict(), strict=True)
    one = torch.randn(2, 21, 24, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    weight = torch.randn(2, 21, 24)
    y, y_reference = ours(one), reference(other)
    torch.testing.assert_close(y, y_reference, rtol=1e-5, atol=1e-5)
    (y * weight).sum().backward()
    (y_reference * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)
    named = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - named[name].grad).norm() <= 1e-5 * named[name].grad.norm() + 1e-6, name


def test_the_stack_equals_transformers_with_the_same_weights():
    from transformers import Mamba2Model

    torch.manual_seed(0)
    reference = Mamba2Model(theirs())
    settings = Mamba2Settings(width=24, depth=2, state=6, head_width=8, chunk=8, readout="last")
    ours = Mamba2Backbone(settings, Context(GRID, width=24))
    names = reference.state_dict()
    ours.load_state_dict({name: value for name, value in names.items() if not name.startswith("embedding")})
    one = torch.randn(2, 21, 24, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    weight = torch.randn(2, 21, 24)
    y = ours(one, Layout.fixed(GRID, torch.arange(21))).levels[0].tokens_BND
    y_reference = reference(inputs_embeds=other, use_cache=False).last_hidden_state
    torch.testing.assert_close(y, y_reference, rtol=1e-5, atol=1e-5)
    (y * weight).sum().backward()
    (y_reference * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=2e-5)
    named = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - named[name].grad).norm() <= 2e-5 * named[name].grad.norm() + 1e-6, name
