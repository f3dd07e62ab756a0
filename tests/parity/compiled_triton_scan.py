"""Compiles every Triton kernel of the scan for a Hopper GPU, down to its machine code; `test_triton_scan` runs it."""

from __future__ import annotations

import re

from reorder_mamba import triton_kernels
from reorder_mamba.triton_scan import EVERY, GROUP, REGISTERS, plan
from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HALF = {"u", "delta", "z", "y", "dy", "du", "ddelta", "dz"}
"""Pointers to bfloat16 here; all other pointers are to float32."""

COUNT = re.compile(r"L|width|groups|runs|\w+_[bt]")

FLAGS = ("SOFTPLUS", "SKIP", "GATE", "BIAS", "KEEP", "CARRIED", "REVERSED")


def main() -> None:
    for name in ("forward", "backward", "ends", "adjoint_ends", "carry"):
        build(name, 16, "tf32")
    build("backward", 16, "tf32x3")
    build("backward", 32, "tf32")
    build("backward", 5, "tf32")


def build(name: str, N: int, precision: str) -> None:
    kernel = getattr(triton_kernels, f"{name}_kernel")
    cut = plan(2, 16384, 768, N, processors=132)
    group = GROUP if name == "backward" else GROUP * EVERY
    constants = {"STATES": N, "N": cut.states, "BLOCK_D": 32, "GROUP": group, "EVERY": EVERY, "PRECISION": precision}
    constants |= dict.fromkeys(FLAGS, True)
    of_kernel = {(place,): constants[key] for place, key in enumerate(kernel.arg_names) if key in constants}
    signature = {
        key: "constexpr" if key in constants else "i32" if COUNT.fullmatch(key) else _pointer(key)
        for key in kernel.arg_names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, key in enumerate(kernel.arg_names)
        if key not in constants and key not in ("L", "groups", "runs", *triton_kernels.UNALIGNED)
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=of_kernel, attrs=aligned)
    options = {"num_warps": cut.warps} | ({"maxnreg": REGISTERS} if name == "backward" else {})
    binary = compiled(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert binary.asm["cubin"], name
    # In the layout that the kernels rest on, a lane holds all states of its channel: no sum is shuffled. What may be is
    # the turn of dB and dC, once a group, from the layout of matrix products to that of memory.
    shuffles = binary.asm["ptx"].count("shfl.")
    print(f"{name}, N = {N}, {precision}: {shuffles} shuffles, shared memory: {binary.metadata.shared}")
    assert N != 16 or shuffles <= (16 if name == "backward" else 0), f"{name}: sums over states leave their lanes"


def _pointer(name: str) -> str:
    return "*bf16" if name in HALF else "*fp32"


if __name__ == "__main__":
    main()
