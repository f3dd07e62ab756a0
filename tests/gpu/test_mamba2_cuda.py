"""Mamba-2's scan on a CUDA device: pure torch, and mamba-ssm's kernels where they are installed, against the twin."""

from __future__ import annotations

import pytest
import torch
from reorder_mamba.mamba2_reference import state_space_dual_reference
from reorder_mamba.state_space_dual import choose_backend, state_space_dual, why_not_mamba_ssm_kernels

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="no CUDA device here")]

MISSING = why_not_mamba_ssm_kernels("cuda", torch.float32) if CUDA else "no CUDA device here"


def inputs(dtype=torch.float32):
    torch.manual_seed(0)
    B, L, H, P, G, N = 2, 100, 4, 64, 1, 64
    values = {
        "x_BLHP": torch.randn(B, L, H, P),
        "dt_BLH": 0.2 * torch.rand(B, L, H),
        "A_H": -1 - 15 * torch.rand(H),
        "B_BLGN": 0.5 * torch.randn(B, L, G, N),
        "C_BLGN": 0.5 * torch.randn(B, L, G, N),
        "D_H": torch.randn(H),
        "z_BLHP": torch.randn(B, L, H, P),
    }
    keep = {"dt_BLH", "A_H", "D_H"}
    return {
        name: value.to("cuda", torch.float32 if name in keep else dtype).requires_grad_()
        for name, value in values.items()
    }


def run(function, values, **options):
    y = function(**values, **options)
    return y.detach(), torch.autograd.grad(y.float().square().sum(), list(values.values()))


def assert_near(ours, twins, share):
    for one, two in zip((ours[0], *ours[1]), (twins[0], *twins[1]), strict=True):
        assert (one.float() - two.float()).norm() <= share * two.float().norm()


def test_pure_torch_equals_the_twin():
    assert_near(run(state_space_dual, inputs(), backend="torch"), run(state_space_dual_reference, inputs()), 1e-4)


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "mamba-ssm's kernels are there")
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-2), (torch.bfloat16, 3e-2)])
def test_mamba_ssm_equals_the_twin(dtype, share):
    ours = run(state_space_dual, inputs(dtype), backend="mamba_ssm")
    assert_near(ours, run(state_space_dual_reference, inputs(dtype)), share)


def test_auto_takes_the_kernels_where_they_are_there():
    assert choose_backend("auto", torch.device("cuda"), torch.float32) == ("torch" if MISSING else "mamba_ssm")
