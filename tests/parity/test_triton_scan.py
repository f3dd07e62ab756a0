"""The scan's Triton backend: its kernels under the interpreter and compiled for a GPU, and what is said without one."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reorder_mamba import selective_scan as seam
from reorder_mamba import triton_scan as module
from reorder_mamba.selective_scan import check_backend, choose_backend, selective_scan
from reorder_mamba.triton_scan import EVERY, GROUP, plan, why_not_triton

from reorder_core import RunError, UsageError

ROOT = Path(__file__).parents[2]
CUDA = torch.device("cuda")


def in_a_process_of_its_own(*arguments: str, **environment: str) -> None:
    """Run python so; what it printed is the message where it fails."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | one_thread | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"


def test_the_kernels_equal_the_twin_under_tritons_interpreter():
    pytest.importorskip("triton", reason="triton is not installed here")
    path = str(Path(__file__).with_name("interpreted_triton_scan.py"))
    in_a_process_of_its_own("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path, TRITON_INTERPRET="1")


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path):
    """The interpreter takes more than the compiler does. Only the launch itself needs the device."""
    pytest.importorskip("triton", reason="triton is not installed here")
    path = str(Path(__file__).with_name("compiled_triton_scan.py"))
    in_a_process_of_its_own(path, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


sizes = st.integers(1, 5000)


@given(B=st.integers(1, 300), L=st.integers(1, 40_000), D=sizes, N=st.integers(1, 256), processors=st.integers(1, 200))
def test_a_plan_covers_the_sequence_and_no_run_is_empty(B, L, D, N, processors):
    cut = plan(B, L, D, N, processors)
    spans = -(-L // (GROUP * EVERY))
    assert (cut.runs - 1) * cut.spans < spans <= cut.runs * cut.spans
    assert cut.states >= N
    assert cut.states & (cut.states - 1) == 0
    assert cut.warps & (cut.warps - 1) == 0
    assert GROUP <= 8


@pytest.mark.parametrize(
    ("B", "D", "L", "runs"), [(64, 768, 196, 1), (16, 768, 1024, 3), (2, 768, 16384, 22), (1, 64, 16, 1)]
)
def test_a_sequence_is_cut_only_where_programs_are_too_few(B, D, L, runs):
    assert plan(B, L, D, 16, processors=132).runs == runs


def test_on_a_cpu_it_refuses_by_name_and_says_what_to_do():
    u = torch.zeros(1, 2, 3)
    with pytest.raises(RunError, match=r"'triton' can not run: it needs tensors on a CUDA device, not on cpu; choose"):
        selective_scan(u, u, torch.zeros(3, 2), u[..., :2], u[..., :2], backend="triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("backend", ["triton", "mamba_ssm"])
def test_a_model_is_refused_before_it_is_built(backend):
    with pytest.raises(UsageError, match=f"scan '{backend}' can not run: there is no CUDA device here; choose"):
        check_backend(backend)


def test_auto_and_torch_are_never_refused():
    check_backend("auto")
    check_backend("torch")


def test_without_triton_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    why_not_triton.cache_clear()
    try:
        assert "pip install triton" in why_not_triton("cuda", torch.float32)
    finally:
        why_not_triton.cache_clear()


def test_without_a_c_compiler_it_says_what_to_install(monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed here")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    why_not_triton.cache_clear()
    try:
        assert "install gcc or clang" in why_not_triton("cuda", torch.float32)
    finally:
        why_not_triton.cache_clear()


@pytest.mark.parametrize(
    ("lacking", "chosen", "level"),
    [
        ((), "mamba_ssm", logging.INFO),
        (("mamba_ssm",), "triton", logging.INFO),
        (("mamba_ssm", "triton"), "torch", logging.WARNING),
    ],
)
def test_auto_takes_the_fastest_that_can_run_and_says_so_once(monkeypatch, caplog, lacking, chosen, level):
    monkeypatch.setattr(seam, "_why_not", lambda name, *_: f"no {name} here" if name in lacking else "")
    seam._say_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="reorder_mamba.selective_scan"):
        assert choose_backend("auto", CUDA, torch.bfloat16) == chosen
        assert choose_backend("auto", CUDA, torch.bfloat16) == chosen
    (record,) = caplog.records
    assert record.levelno == level
    assert all(f"{name}: no {name} here" in record.getMessage() for name in lacking)
    seam._say_once.cache_clear()


def test_an_exported_graph_has_torchs_own_operators_whatever_the_backend():
    class Scan(torch.nn.Module):
        def forward(self, u, delta, A, B, C):
            return selective_scan(u, delta, A, B, C, backend="triton")

    u, A, B = torch.randn(1, 3, 4), -torch.rand(4, 2), torch.randn(1, 3, 2)
    exported = torch.export.export(Scan(), (u, u.abs(), A, B, B), strict=False)
    assert "exp" in exported.graph_module.print_readable(print_output=False)
    assert "reorder_mamba" not in exported.graph_module.print_readable(print_output=False)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("scan_cuda", ROOT / "benchmarks" / "scan_cuda.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_benchmark_counts_each_input_and_result_once_in_each_pass(benchmark):
    B, D, L, N = 2, 3, 5, 7
    u, B_BLN = torch.empty(B, L, D, dtype=torch.bfloat16), torch.empty(B, L, N, dtype=torch.bfloat16)
    weights = (torch.empty(D, N), torch.empty(D), torch.empty(D))
    given = (u, u, u, B_BLN, B_BLN, *weights)
    forward, backward = benchmark.least_bytes((B, D, L, N))
    assert forward == sum(tensor.nbytes for tensor in (*given, u))
    assert backward == sum(tensor.nbytes for tensor in (*given, u, *given))


def test_the_benchmark_knows_the_bandwidth_by_name_or_from_the_memory(benchmark):
    assert benchmark.peak_bandwidth("NVIDIA H200") == 4.8e12
    assert benchmark.peak_bandwidth("NVIDIA H100 80GB HBM3") == 3.35e12
    assert benchmark.peak_bandwidth("NVIDIA H100 PCIe") == 2.0e12
    assert benchmark.peak_bandwidth("another", 2_619_000, 5120) == pytest.approx(3.35e12, rel=0.01)
    assert benchmark.peak_bandwidth("another") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_the_benchmark_says_in_one_sentence_that_there_is_no_device(benchmark, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scan_cuda.py"])
    with pytest.raises(SystemExit, match=r"^[^\n]* torch finds no CUDA device here: run it where there is one$"):
        benchmark.main()
