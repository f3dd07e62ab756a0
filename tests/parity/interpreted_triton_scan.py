"""The Triton kernels against the twin, under Triton's interpreter; `test_triton_scan` runs this file on its own.

Triton reads TRITON_INTERPRET when it is imported, and torch may have imported it before: hence a process apart.
"""

from __future__ import annotations

import pytest
import torch
from reorder_mamba import triton_scan as module
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import check_backend, selective_scan
from reorder_mamba.triton_scan import EVERY, GROUP, Plan, triton_scan, triton_scan_backward, why_not_triton

SPAN = GROUP * EVERY
EVERYTHING = ("D_D", "z_BLD", "delta_bias_D")


def inputs(B: int, L: int, D: int, N: int, given: tuple[str, ...] = EVERYTHING) -> dict[str, torch.Tensor]:
    """Float32, as the kernels take no float64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    values = {
        "u_BLD": normal(B, L, D),
        "delta_BLD": 0.5 * normal(B, L, D),
        "A_DN": -3 * torch.rand(D, N, generator=generator),
        "B_BLN": normal(B, L, N),
        "C_BLN": normal(B, L, N),
        "D_D": normal(D),
        "z_BLD": normal(B, L, D),
        "delta_bias_D": 0.1 * normal(D),
    }
    return {name: value for name, value in values.items() if name in given or name not in EVERYTHING}


def output_and_gradients(function, values, **options):
    leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
    y_BLD = function(**leaves, **options)
    weight_BLD = torch.linspace(-1, 1, y_BLD.numel(), dtype=torch.float64).view_as(y_BLD).to(y_BLD.dtype)
    return {"y_BLD": y_BLD.detach()} | dict(
        zip(leaves, torch.autograd.grad((y_BLD * weight_BLD).sum(), list(leaves.values())), strict=True)
    )


def assert_equals_the_twin(values, share=2e-6, **options):
    """Each result within a share of its largest entry from the twin's, which runs in float64 on the same inputs."""
    ours = output_and_gradients(selective_scan, values, backend="triton", **options)
    twins = output_and_gradients(
        selective_scan_reference, {name: value.double() for name, value in values.items()}, **options
    )
    for name, twin in twins.items():
        own = values["u_BLD" if name == "y_BLD" else name]
        assert ours[name].shape == twin.shape, name
        assert ours[name].dtype == own.dtype, name
        difference = (ours[name].double() - twin).abs().max()
        assert difference <= share * twin.abs().max() + 1e-6, f"{name}: off by {difference}"


@pytest.mark.parametrize("L", [1, SPAN, 2 * SPAN + 1])
def test_any_length(L):
    assert_equals_the_twin(inputs(1, L, 3, 4), delta_softplus=True)


@pytest.mark.parametrize(
    ("given", "softplus"), [((), False), (("z_BLD",), True), (("D_D", "delta_bias_D"), False), (("D_D",), True)]
)
def test_with_and_without_skip_gate_bias_and_softplus(given, softplus):
    assert_equals_the_twin(inputs(1, SPAN + 1, 3, 2, given), delta_softplus=softplus)


def test_channels_that_fill_no_block_and_states_that_are_no_power_of_two():
    assert_equals_the_twin(inputs(2, 3, 37, 5), delta_softplus=True)


@pytest.mark.parametrize("N", [16, 40])
def test_many_states(N):
    """From 16 on, sums over channels are matrix products."""
    assert_equals_the_twin(inputs(1, 3, 9, N), delta_softplus=True)


@pytest.mark.parametrize("gate", [True, False])
def test_a_sequence_cut_into_runs(monkeypatch, gate):
    """Three runs, the last one short: states go forward across the cuts, adjoints back."""
    monkeypatch.setattr(module, "plan", lambda *_: Plan(states=4, warps=1, blocks=1, runs=3, spans=2))
    values = inputs(1, 5 * SPAN - 1, 3, 3, EVERYTHING if gate else ())
    values["delta_BLD"] = values["delta_BLD"].abs()
    assert_equals_the_twin(values, delta_softplus=gate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_scanned_in_float32(dtype):
    """Results are rounded once: they are within a rounding of the twin's in float64."""
    half = ("u_BLD", "delta_BLD", "B_BLN", "C_BLN", "z_BLD")
    values = {name: value.to(dtype) if name in half else value for name, value in inputs(1, 9, 4, 4).items()}
    assert_equals_the_twin(values, share=torch.finfo(dtype).eps, delta_softplus=True)


def test_each_input_may_have_its_own_dtype():
    values = inputs(1, 3, 4, 4)
    values |= {"u_BLD": values["u_BLD"].bfloat16(), "A_DN": values["A_DN"].half(), "D_D": values["D_D"].bfloat16()}
    assert_equals_the_twin(values, share=2**-7, delta_softplus=True)


def test_slices_of_a_projection_are_read_where_they_lie():
    B, L, D, N = 2, 5, 4, 3
    values = inputs(B, L, D, N)
    wide_BLR, both_BLE = torch.randn(B, L, 2 + 2 * N), torch.randn(B, L, 2 * D)
    sliced = values | {
        "B_BLN": wide_BLR[..., 2 : 2 + N],
        "C_BLN": wide_BLR[..., 2 + N :],
        "z_BLD": both_BLE[..., D:],
        "u_BLD": torch.randn(B, D, L).mT,
        "delta_BLD": torch.randn(1, 1, D).expand(B, L, D),
    }
    assert_equals_the_twin(sliced, delta_softplus=True)


def test_steps_far_below_one_keep_their_digits():
    """softplus(-20) is 2e-9: in float32, log(1 + exp(-20)) alone is 0."""
    values = inputs(1, 5, 3, 2, ())
    values["delta_BLD"] = values["delta_BLD"] - 20
    y = selective_scan(**values, delta_softplus=True, backend="triton")
    twin = selective_scan_reference(**{name: value.double() for name, value in values.items()}, delta_softplus=True)
    torch.testing.assert_close(y.double(), twin, rtol=1e-5, atol=0)


def test_extreme_decays_and_steps_stay_finite():
    values = inputs(1, 5, 3, 2)
    values["A_DN"] = torch.full((3, 2), -1e4)
    values["delta_BLD"] = 60 * values["delta_BLD"]
    values["z_BLD"] = 200 * values["z_BLD"]
    results = output_and_gradients(selective_scan, values, delta_softplus=True, backend="triton")
    assert all(result.isfinite().all() for result in results.values())


def test_states_are_kept_only_for_a_backward_pass():
    values = inputs(1, 9, 3, 2, ())
    arguments = (values["u_BLD"], values["delta_BLD"], values["A_DN"].t().contiguous(), values["B_BLN"])
    kept = triton_scan(*arguments, values["C_BLN"], None, None, None, True, True)
    none = triton_scan(*arguments, values["C_BLN"], None, None, None, True, False)
    assert torch.equal(kept[0], none[0])
    assert kept[1].shape == (1, -(-9 // SPAN), 2, 3)
    assert none[1].numel() == 0


def test_operators_hold_to_torchs_rules_for_operators():
    values = inputs(1, 3, 3, 2)
    plain = (values["u_BLD"], values["delta_BLD"], values["A_DN"].t().contiguous(), values["B_BLN"], values["C_BLN"])
    rest = (values["D_D"], None, values["delta_bias_D"])
    leaves = tuple(value.clone().requires_grad_() for value in plain)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(triton_scan, (*leaves, *rest, True, True), test_utils=tests)
    y_BLD, start_BKND = triton_scan(*plain, *rest, True, True)
    torch.library.opcheck(
        triton_scan_backward,
        (y_BLD, *plain, *rest, start_BKND, True),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_torch_compile_takes_it_as_one_node():
    values = inputs(1, 3, 3, 2)

    def run(**tensors):
        return 2 * selective_scan(**tensors, delta_softplus=True, backend="triton")

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output_and_gradients(compiled, values), output_and_gradients(run, values))


def test_the_interpreter_is_no_reason_to_refuse():
    assert why_not_triton("cpu", torch.float32) == ""
    assert "not float64" in why_not_triton("cpu", torch.float64)
    check_backend("triton")
