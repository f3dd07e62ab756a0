"""The scan's Triton kernels on a CUDA device, against the twin in float64 and against themselves."""

from __future__ import annotations

import pytest
import torch
from reorder_mamba import triton_scan as module
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import choose_backend, selective_scan, why_not_mamba_ssm, why_not_triton

CUDA = torch.cuda.is_available()
MISSING = why_not_triton("cuda", torch.float32) if CUDA else "no CUDA device here"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(MISSING), reason=MISSING or "Triton kernels run here")]

HALF = ("u_BLD", "delta_BLD", "B_BLN", "C_BLN", "z_BLD")


def inputs(B: int, L: int, D: int, N: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    values = {
        "u_BLD": normal(B, L, D),
        "delta_BLD": 0.5 * normal(B, L, D) - 2,
        "A_DN": -3 * torch.rand(D, N, generator=generator),
        "B_BLN": normal(B, L, N),
        "C_BLN": normal(B, L, N),
        "D_D": normal(D),
        "z_BLD": normal(B, L, D),
        "delta_bias_D": 0.1 * normal(D),
    }
    return {
        name: value.to("cuda", dtype if name in HALF else torch.float32).requires_grad_()
        for name, value in values.items()
    }


def output_and_gradients(function, values, **options):
    y_BLD = function(**values, delta_softplus=True, **options)
    weight_BLD = torch.linspace(-1, 1, y_BLD.numel(), device="cuda").view_as(y_BLD).to(y_BLD.dtype)
    return (y_BLD.detach(), *torch.autograd.grad(y_BLD, list(values.values()), weight_BLD))


def exact(values):
    return {name: value.detach().double().requires_grad_() for name, value in values.items()}


def assert_near(ours, twins, share):
    for one, two in zip(ours, twins, strict=True):
        assert (one.double() - two.double()).norm() <= share * two.double().norm()


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
@pytest.mark.parametrize(
    ("B", "L", "D", "N"),
    [(1, 1, 1, 1), (3, 5, 33, 16), (2, 196, 192, 16), (1, 2047, 40, 16), (2, 64, 48, 7), (1, 50, 24, 64)],
)
def test_equals_the_twin_in_value_and_gradient(B, L, D, N, dtype, share):
    values = inputs(B, L, D, N, dtype)
    ours = output_and_gradients(selective_scan, values, backend="triton")
    assert [one.dtype for one in ours] == [dtype, *(value.dtype for value in values.values())]
    assert_near(ours, output_and_gradients(selective_scan_reference, exact(values)), share)


@pytest.mark.parametrize(("B", "L", "D", "N"), [(64, 196, 768, 16), (16, 1024, 768, 16), (2, 16384, 768, 16)])
def test_the_shapes_of_the_benchmark_equal_the_torch_backend(B, L, D, N):
    """In bfloat16, so that what is asked of offsets and runs is what the benchmark asks of them."""
    values = inputs(B, L, D, N, torch.bfloat16)
    ours = output_and_gradients(selective_scan, values, backend="triton")
    assert_near(ours, output_and_gradients(selective_scan, values, backend="torch"), 6e-3)


def test_the_same_inputs_give_the_same_bits():
    values = inputs(2, 4096, 96, 16, torch.bfloat16)
    first, second = (output_and_gradients(selective_scan, values, backend="triton") for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_runs_change_nothing_but_rounding(monkeypatch):
    values = inputs(1, 1000, 64, 16)
    cut = output_and_gradients(selective_scan, values, backend="triton")
    whole = module.plan(1, 1000, 64, 16, processors=1)
    assert whole.runs == 1
    monkeypatch.setattr(module, "plan", lambda *_: whole)
    assert_near(cut, output_and_gradients(selective_scan, values, backend="triton"), 1e-5)


def test_slices_of_a_projection_are_read_where_they_lie():
    """Gate, B and C as a mixer cuts them out of wider tensors: no copy is made, and nothing else is read."""
    B, L, D, N = 2, 70, 64, 16
    values = inputs(B, L, D, N, torch.bfloat16)
    wide_BLR = torch.randn(B, L, 12 + 2 * N, device="cuda", dtype=torch.bfloat16)
    both_BLE = torch.randn(B, L, 2 * D, device="cuda", dtype=torch.bfloat16)
    sliced = values | {
        "B_BLN": wide_BLR[..., 12 : 12 + N].requires_grad_(),
        "C_BLN": wide_BLR[..., 12 + N :].requires_grad_(),
        "z_BLD": both_BLE[..., D:].requires_grad_(),
    }
    ours = output_and_gradients(selective_scan, sliced, backend="triton")
    assert_near(ours, output_and_gradients(selective_scan_reference, exact(sliced)), 4e-3)


def test_no_tensor_of_the_sequence_is_made_that_is_not_a_result():
    """Forward: y, and a state in so many steps. With its states in between it would be N times u."""
    B, L, D, N = 4, 1024, 256, 16
    values = inputs(B, L, D, N, torch.bfloat16)
    selective_scan(**values, delta_softplus=True, backend="triton")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    y_BLD = selective_scan(**values, delta_softplus=True, backend="triton")
    kept = B * D * N * 4 * L // (module.GROUP * module.EVERY)
    assert torch.cuda.max_memory_allocated() - before < 1.2 * (y_BLD.numel() * 2 + kept)


def test_torch_compile_takes_it_as_one_node():
    values = inputs(2, 100, 64, 16, torch.bfloat16)

    def run(**tensors):
        return selective_scan(**tensors, backend="triton")

    compiled = torch.compile(run, fullgraph=True)
    assert_near(output_and_gradients(compiled, values), output_and_gradients(run, values), 1e-6)


def test_auto_prefers_mamba_ssm_and_else_takes_triton():
    compiled = not why_not_mamba_ssm("cuda", torch.bfloat16)
    assert choose_backend("auto", torch.device("cuda"), torch.bfloat16) == ("mamba_ssm" if compiled else "triton")
