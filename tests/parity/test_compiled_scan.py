"""The compiled scan against its twins: the slow one in float64, and the eager one."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from reorder_mamba import chunked_scan, compiled_scan
from reorder_mamba.reference import selective_scan_reference
from reorder_mamba.selective_scan import selective_scan

from reorder_core import RunError, UsageError

MISSING = compiled_scan.why_not()
needs_compiler = pytest.mark.skipif(bool(MISSING), reason=MISSING or "the kernel is there")
CACHES = (compiled_scan.library, compiled_scan.why_not, compiled_scan._chosen, compiled_scan._entry)


@pytest.fixture
def afresh():
    """Nothing is known of the machine yet; whatever a test finds out is forgotten again."""
    for cache in CACHES:
        cache.cache_clear()
    yield
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.setenv(compiled_scan.SWITCH, "compiled")


def inputs(B, L, D, N, dtype=torch.float64, seed=0):
    """u, delta, A (D×N), B, C."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, L, D), (B, L, D), (D, N), (B, L, N), (B, L, N))
    u, delta, A, write, read = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    values = (u, delta.abs() * 0.3, -A.abs() * 2, write, read)
    return [value.to(dtype).requires_grad_() for value in values]


def output_and_gradients(scan, values):
    y_BLD = scan(*values)
    weight_BLD = torch.linspace(-1, 1, y_BLD.numel(), dtype=torch.float64).view_as(y_BLD).to(y_BLD.dtype)
    return [y_BLD.detach(), *torch.autograd.grad((y_BLD * weight_BLD).sum(), values)]


def ours(*values):
    return selective_scan(*values, backend="torch")


def form(name, values, monkeypatch):
    monkeypatch.setenv(compiled_scan.SWITCH, name)
    return output_and_gradients(ours, values)


# Channels: less than a vector, vectors with a rest, more than a task's 128. Steps: one, whole chunks, with a rest.
SHAPES = [(1, 1, 1, 1), (2, 7, 3, 2), (3, 8, 32, 4), (2, 19, 37, 5), (1, 24, 128, 3), (2, 11, 301, 2), (1, 13, 130, 16)]


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_twin_in_value_and_gradient(shape, compiled):
    values = inputs(*shape)
    found, twins = output_and_gradients(ours, values), output_and_gradients(selective_scan_reference, values)
    torch.testing.assert_close(found, twins, rtol=1e-11, atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("shape", [(2, 19, 37, 5), (4, 64, 130, 16)])
def test_float32_stays_as_near_to_float64_as_the_eager_form(shape, monkeypatch):
    exact = inputs(*shape)
    single = [value.detach().float().requires_grad_() for value in exact]
    twins = output_and_gradients(selective_scan_reference, exact)
    for found, eager, twin in zip(
        form("compiled", single, monkeypatch), form("eager", single, monkeypatch), twins, strict=True
    ):
        error, eager_error = ((one.double() - twin).norm() / twin.norm() for one in (found, eager))
        assert error <= 2 * eager_error + 1e-7


@needs_compiler
def test_both_forms_keep_the_same_states(monkeypatch):
    u, delta, A, B, C = (value.detach() for value in inputs(2, 21, 37, 4))
    kept = []
    for name in ("eager", "compiled"):
        monkeypatch.setenv(compiled_scan.SWITCH, name)
        kept.append(chunked_scan.scan(u, delta, A.t(), B, C))
    torch.testing.assert_close(*kept, rtol=1e-12, atol=1e-12)
    assert [y.stride() for y, _ in kept] == [u.stride()] * 2


@needs_compiler
def test_the_same_bits_again_with_any_number_of_threads_and_beside_another_scan(compiled):
    values, others = inputs(3, 40, 300, 16, torch.float32), inputs(2, 25, 140, 16, torch.float32, seed=1)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results += [output_and_gradients(ours, values) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            beside = [pool.submit(output_and_gradients, ours, one) for one in (values, others) * 3]
            results += [run.result() for run in beside[::2]]
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, first) for one, first in zip(result, results[0], strict=True))


@needs_compiler
def test_inputs_may_be_views_of_any_kind(compiled):
    plain = [value.detach() for value in inputs(3, 12, 37, 4)]
    expected = ours(*plain)
    apart = [torch.stack((v, v), dim=-1).flatten(-2)[..., ::2] for v in plain]
    turned = [v.transpose(0, 1).contiguous().transpose(0, 1) for v in plain]
    of_a_row = [torch.cat((v, v), dim=-1)[..., v.shape[-1] :] for v in plain]
    for views in (apart, turned, of_a_row):
        assert torch.equal(ours(*views), expected)
    one = [v[:1].expand(v.shape) if v.ndim == 3 else v for v in plain]
    assert torch.equal(ours(*one), ours(*(v.contiguous() for v in one)))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_exponential_is_right_everywhere(dtype, compiled):
    """Two steps, of which the first, a short one, makes every state 1: the second state is exp(delta A) itself."""
    top = 88.7 if dtype == torch.float32 else 709.7
    edges = [0.0, 1e-30, -1e-30, 0.5, -0.5, -87.0, -1e30, -torch.inf, torch.nan, top + 1, 1.2 * top, 20 * top]
    exponent = torch.cat((torch.tensor(edges, dtype=dtype), torch.linspace(-top + 2, top, 4001, dtype=dtype)))
    D = exponent.numel()
    first, second = torch.full((D,), 2.0**-20, dtype=dtype), torch.ones(D, dtype=dtype)
    u, delta = torch.stack((1 / first, 0 * second))[None], torch.stack((first, second))[None]
    one = torch.ones(1, 2, 1, dtype=dtype)
    found = ours(u, delta, exponent[:, None], one, one)[0, 1].double()
    expected = exponent.double().exp()
    normal = (expected >= torch.finfo(dtype).tiny) & (expected <= torch.finfo(dtype).max)
    # exp(x) as 2^(x log2 e): rounding the product costs a share of eps that grows with |x|.
    bound = torch.finfo(dtype).eps * (2 + 1.5 * exponent.double().abs())[normal]
    assert ((found / expected - 1).abs()[normal] <= bound).all()
    assert found[0] == 1
    over, under = expected > torch.finfo(dtype).max, expected < torch.finfo(dtype).tiny
    assert (found[over] == torch.inf).all()
    assert (found[under] == 0).all()
    assert found[expected.isnan()].isnan().all()


@needs_compiler
def test_a_gradient_at_the_last_step_alone_stays_finite_and_right(compiled):
    values = inputs(2, 72, 4, 3, torch.float32)
    values[2] = torch.full((4, 3), -40.0, requires_grad=True)
    gradients = torch.autograd.grad(ours(*values)[:, -1].sum(), values)
    twins = torch.autograd.grad(selective_scan_reference(*values)[:, -1].sum(), values)
    torch.testing.assert_close(gradients, twins, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_builds_where_nothing_was_built_and_says_so_once(tmp_path, monkeypatch, caplog, afresh):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled_scan.SWITCH, raising=False)
    values = inputs(1, 9, 5, 2)
    with caplog.at_level(logging.INFO, logger="reorder_mamba.compiled_scan"):
        found = [ours(*values) for _ in range(2)]
    torch.testing.assert_close(found, [selective_scan_reference(*values)] * 2)
    building, runs = (record.getMessage() for record in caplog.records)
    assert building.startswith("building the compiled scan with ")
    assert runs == "selective scan on cpu, in torch: compiled"
    assert [path.suffix for path in (tmp_path / "reorder").iterdir()] == [".so"]


def nothing_compiles(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(compiler))


def test_without_a_compiler_the_eager_form_runs_and_the_log_says_why(tmp_path, monkeypatch, caplog, afresh):
    nothing_compiles(tmp_path, monkeypatch, "no-such-compiler")
    monkeypatch.delenv(compiled_scan.SWITCH, raising=False)
    values = inputs(2, 9, 5, 2)
    with caplog.at_level(logging.INFO, logger="reorder_mamba.compiled_scan"):
        found = [output_and_gradients(ours, values) for _ in range(2)]
    torch.testing.assert_close(found[0], output_and_gradients(selective_scan_reference, values))
    assert [record.getMessage() for record in caplog.records] == [
        "selective scan on cpu, in torch: eager, about three times slower than compiled: "
        "there is no C++ compiler (no-such-compiler)"
    ]


def test_a_compiler_that_fails_is_told_apart_from_none(tmp_path, monkeypatch, afresh):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'x.cpp: error: no such flag' >&2\nexit 3\n")
    compiler.chmod(0o755)
    nothing_compiles(tmp_path, monkeypatch, compiler)
    assert compiled_scan.why_not() == f"{compiler} fails to build the kernel (x.cpp: error: no such flag)"


def test_compiled_by_name_is_refused_where_it_can_not_be(tmp_path, monkeypatch, afresh):
    nothing_compiles(tmp_path, monkeypatch, "no-such-compiler")
    monkeypatch.setenv(compiled_scan.SWITCH, "compiled")
    with pytest.raises(RunError, match=r"REORDER_CPU_SCAN=compiled can not run: there is no C\+\+ compiler"):
        ours(*inputs(1, 3, 2, 2))


def test_a_form_that_does_not_exist_is_refused(monkeypatch, afresh):
    monkeypatch.setenv(compiled_scan.SWITCH, "fast")
    with pytest.raises(UsageError, match=r"REORDER_CPU_SCAN is 'fast'; it must be 'auto', 'compiled' or 'eager'"):
        ours(*inputs(1, 3, 2, 2))


def test_scratch_of_inference_mode_serves_training(monkeypatch, afresh):
    monkeypatch.setenv(compiled_scan.SWITCH, "eager")
    monkeypatch.setattr(chunked_scan, "_kept", chunked_scan._Kept())
    values = inputs(2, 11, 5, 3)
    with torch.inference_mode():
        before = ours(*values)
    assert torch.equal(output_and_gradients(ours, values)[0], before)


def test_a_command_that_cannot_be_read_is_told(monkeypatch, afresh):
    monkeypatch.setenv("CXX", "'unbalanced")
    assert "CXX" in compiled_scan.why_not()
    monkeypatch.delenv(compiled_scan.SWITCH, raising=False)
    assert not compiled_scan.runs_for(torch.zeros(1))


def test_eager_asks_no_compiler(tmp_path, monkeypatch, afresh):
    nothing_compiles(tmp_path, monkeypatch, "no-such-compiler")
    monkeypatch.setenv(compiled_scan.SWITCH, "eager")
    ours(*inputs(1, 3, 2, 2))
    assert compiled_scan.why_not.cache_info().misses == 0
