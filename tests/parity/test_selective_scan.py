"""The fast scan against its slow, legible twin."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch
from reorder_mamba import chunked_scan
from reorder_mamba import selective_scan as module
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import selective_scan

from reorder_core import RunError


def inputs(
    B: int, L: int, D: int, N: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = {
        "u_BLD": normal(B, L, D),
        "delta_BLD": 0.5 * normal(B, L, D),
        "A_DN": -torch.rand(D, N, generator=generator, dtype=torch.float64) * 3,
        "B_BLN": normal(B, L, N),
        "C_BLN": normal(B, L, N),
        "D_D": normal(D),
        "z_BLD": normal(B, L, D),
        "delta_bias_D": 0.1 * normal(D),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in values.items()}


def output_and_gradients(function, values, **options):
    y_BLD = function(**values, **options)
    weight_BLD = torch.linspace(-1, 1, y_BLD.numel(), dtype=torch.float64).view_as(y_BLD).to(y_BLD.dtype)
    return y_BLD.detach(), torch.autograd.grad((y_BLD * weight_BLD).sum(), list(values.values()))


OPTIONS = list(itertools.product([False, True], repeat=4))


@pytest.mark.parametrize(("skip", "gate", "bias", "softplus"), OPTIONS)
@pytest.mark.parametrize("L", [1, 8, 21])
def test_equals_the_twin_in_value_and_gradient(L, skip, gate, bias, softplus):
    values = inputs(B=3, L=L, D=5, N=4)
    for name, used in (("D_D", skip), ("z_BLD", gate), ("delta_bias_D", bias)):
        if not used:
            del values[name]
    if not softplus:
        values["delta_BLD"] = values["delta_BLD"].detach().abs().requires_grad_()
    ours = output_and_gradients(selective_scan, values, delta_softplus=softplus, backend="torch")
    twins = output_and_gradients(selective_scan_reference, values, delta_softplus=softplus)
    torch.testing.assert_close(ours, twins, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("L", [1, 7, 11])
def test_gradcheck(L):
    values = inputs(B=2, L=L, D=3, N=2)

    def run(*tensors):
        return selective_scan(*tensors, delta_softplus=True, backend="torch")

    assert torch.autograd.gradcheck(run, tuple(values.values()))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 9, 1, 3), (1, 16, 4, 1), (4, 33, 96, 16)])
def test_float32_stays_near_float64(shape):
    B, L, D, N = shape
    exact = inputs(B, L, D, N)
    single = {name: value.detach().float().requires_grad_() for name, value in exact.items()}
    y_exact, gradients_exact = output_and_gradients(selective_scan_reference, exact, delta_softplus=True)
    y, gradients = output_and_gradients(selective_scan, single, delta_softplus=True, backend="torch")
    torch.testing.assert_close(y.double(), y_exact, rtol=1e-4, atol=1e-4)
    for ours, reference in zip(gradients, gradients_exact, strict=True):
        assert (ours.double() - reference).norm() <= 1e-5 * reference.norm() + 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_scanned_in_float32(dtype):
    """Hundreds of steps: a scan in half precision would be far off; rounding the output once is not."""
    half = {name: value.detach().to(dtype).requires_grad_() for name, value in inputs(2, 300, 8, 4).items()}
    single = {name: value.detach().float().requires_grad_() for name, value in half.items()}
    y, gradients = output_and_gradients(selective_scan, half, delta_softplus=True, backend="torch")
    y_single, _ = output_and_gradients(selective_scan, single, delta_softplus=True, backend="torch")
    assert y.dtype == dtype
    assert all(gradient.dtype == dtype for gradient in gradients)
    torch.testing.assert_close(y, y_single.to(dtype))


def test_autocast_does_not_reach_the_scan():
    values = inputs(2, 20, 8, 4, torch.float32)
    plain = output_and_gradients(selective_scan, values, delta_softplus=True, backend="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = output_and_gradients(selective_scan, values, delta_softplus=True, backend="torch")
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_extreme_decays_stay_finite():
    values = inputs(2, 40, 4, 3, torch.float32)
    values["A_DN"] = torch.full((4, 3), -1e4, requires_grad=True)
    y, gradients = output_and_gradients(selective_scan, values, delta_softplus=True, backend="torch")
    assert y.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_gradient_at_the_last_step_alone_meets_no_denormal_numbers(monkeypatch):
    """Adjoints of fast-decaying states sink below float32's normal range; one addend keeps the buffers out of it."""
    monkeypatch.setenv("REORDER_CPU_SCAN", "eager")
    values = inputs(2, 72, 4, 3, torch.float32)
    values["A_DN"] = torch.full((4, 3), -2.0, requires_grad=True)
    gradients = torch.autograd.grad(
        selective_scan(**values, delta_softplus=True, backend="torch")[:, -1].sum(), list(values.values())
    )
    twins = torch.autograd.grad(
        selective_scan_reference(**values, delta_softplus=True)[:, -1].sum(), list(values.values())
    )
    torch.testing.assert_close(gradients, twins, rtol=1e-4, atol=1e-5)
    kept = [buffer[: 8 * 2 * 4 * 3] for (dtype, _), buffer in chunked_scan._kept.flat.items() if dtype == torch.float32]
    adjoints = torch.cat(kept)
    smallest = torch.finfo(torch.float32).tiny
    assert not ((adjoints != 0) & (adjoints.abs() < smallest)).any()


def test_inputs_that_are_views_and_need_no_gradient():
    values = {name: value.detach() for name, value in inputs(4, 12, 6, 3).items()}
    wide = {name: torch.stack((v, v), dim=-1).flatten(-2)[..., ::2] for name, v in values.items()}
    y = selective_scan(**wide, delta_softplus=True, backend="torch")
    torch.testing.assert_close(y, selective_scan_reference(**values, delta_softplus=True))
    assert not y.requires_grad


def test_the_inputs_are_left_as_they_were():
    values = inputs(2, 12, 4, 3)
    before = {name: value.detach().clone() for name, value in values.items()}
    output_and_gradients(selective_scan, values, delta_softplus=True, backend="torch")
    for name, value in values.items():
        assert torch.equal(value, before[name]), name


def test_what_is_kept_for_the_backward_pass_is_an_eighth_of_the_states():
    B, L, D, N = 2, 64, 8, 16
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        selective_scan(**inputs(B, L, D, N), delta_softplus=True, backend="torch")
    assert max(kept) == B * L * D * N // chunked_scan.CHUNK


def test_operators_hold_to_torchs_rules_for_operators():
    v = inputs(2, 11, 3, 2)
    A_ND = v["A_DN"].detach().t().contiguous().requires_grad_()
    args = (v["u_BLD"], v["delta_BLD"], A_ND, v["B_BLN"], v["C_BLN"])
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(chunked_scan.scan, args, test_utils=tests)
    plain = [arg.detach() for arg in args]
    y_BLD, start_KBND = chunked_scan.scan(*plain)
    torch.library.opcheck(
        chunked_scan.scan_backward, (y_BLD, *plain, start_KBND), test_utils=("test_schema", "test_faketensor")
    )


def test_auto_says_once_what_runs(caplog):
    module._say_once.cache_clear()
    values = inputs(1, 3, 2, 2)
    with caplog.at_level(logging.INFO, logger="reorder_mamba.selective_scan"):
        selective_scan(**values)
        selective_scan(**values)
    assert [record.getMessage() for record in caplog.records] == ["selective scan on cpu: pure torch"]


def test_mamba_ssm_by_name_refuses_what_it_can_not_run():
    with pytest.raises(RunError, match=r"needs tensors on a CUDA device, not on cpu; choose scan 'auto' or 'torch'"):
        selective_scan(**inputs(1, 3, 2, 2), backend="mamba_ssm")


def test_the_compiled_extension_is_looked_for_not_the_package(monkeypatch):
    """mamba-ssm installed without its CUDA scan: the package imports, the extension does not."""
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, "mamba_ssm", ModuleType("mamba_ssm"))
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    module.why_not_mamba_ssm.cache_clear()
    try:
        assert "not installed here" in module.why_not_mamba_ssm("cuda", torch.float32)
    finally:
        module.why_not_mamba_ssm.cache_clear()
