"""The scan on a CUDA device: pure torch, and mamba-ssm's kernels where they are installed, against the twin."""

from __future__ import annotations

import pytest
import torch
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import choose_backend, selective_scan, why_not_mamba_ssm

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="no CUDA device here")]

MISSING = why_not_mamba_ssm("cuda", torch.float32) if CUDA else "no CUDA device here"


def inputs(dtype=torch.float32):
    torch.manual_seed(0)
    B, L, D, N = 2, 50, 64, 16
    values = {
        "u_BLD": torch.randn(B, L, D),
        "delta_BLD": 0.5 * torch.randn(B, L, D),
        "A_DN": -3 * torch.rand(D, N),
        "B_BLN": torch.randn(B, L, N),
        "C_BLN": torch.randn(B, L, N),
        "D_D": torch.randn(D),
        "z_BLD": torch.randn(B, L, D),
        "delta_bias_D": 0.1 * torch.randn(D),
    }
    keep = {"A_DN", "D_D", "delta_bias_D"}
    return {
        name: value.to("cuda", torch.float32 if name in keep else dtype).requires_grad_()
        for name, value in values.items()
    }


def run(function, values, **options):
    y_BLD = function(**values, delta_softplus=True, **options)
    return y_BLD.detach(), torch.autograd.grad(y_BLD.float().square().sum(), list(values.values()))


def assert_near(ours, twins, share):
    for one, two in zip((ours[0], *ours[1]), (twins[0], *twins[1]), strict=True):
        assert (one.float() - two.float()).norm() <= share * two.float().norm()


def test_pure_torch_equals_the_twin():
    assert_near(run(selective_scan, inputs(), backend="torch"), run(selective_scan_reference, inputs()), 1e-4)


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "mamba-ssm's compiled scan is there")
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
def test_mamba_ssm_equals_the_twin(dtype, share):
    ours = run(selective_scan, inputs(dtype), backend="mamba_ssm")
    assert_near(ours, run(selective_scan_reference, inputs(dtype)), share)


def test_auto_takes_the_compiled_scan_where_it_is_there():
    chosen = choose_backend("auto", torch.device("cuda"), torch.float32)
    assert (chosen == "mamba_ssm") == (not MISSING)
