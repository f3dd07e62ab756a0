"""Compiles every Triton kernel of the scan for a Hopper GPU, down to its machine code; `test_triton_scan` runs it."""

from __future__ import annotations

import re

from reorder_mamba import triton_kernels
from reorder_mamba.triton_scan import EVERY, GROUP, plan
from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HALF = {"u", "delta", "z", "B", "C", "y", "dy", "du", "ddelta", "dz"}
"""Pointers to bfloat16 here; all other pointers are to float32."""

COUNT = re.compile(r"L|width|states|groups|runs|\w+_[bt]")


def main() -> None:
    cut = plan(2, 16384, 768, 16, processors=132)
    constants = {
        "N": cut.states,
        "BLOCK_D": cut.channels,
        "GROUP": GROUP,
        "EVERY": EVERY,
        **dict.fromkeys(("SOFTPLUS", "SKIP", "GATE", "BIAS", "KEEP", "CARRIED", "REVERSED"), True),
    }
    for name in ("forward", "backward", "ends", "adjoint_ends", "carry"):
        kernel = getattr(triton_kernels, f"{name}_kernel")
        of_kernel = {(place,): constants[key] for place, key in enumerate(kernel.arg_names) if key in constants}
        signature = {
            key: "constexpr" if key in constants else "i32" if COUNT.fullmatch(key) else _pointer(key)
            for key in kernel.arg_names
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=of_kernel)
        binary = compiled(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
        assert binary.asm["cubin"], name
        print(name, "shared memory:", binary.metadata.shared)


def _pointer(name: str) -> str:
    return "*bf16" if name in HALF else "*fp32"


if __name__ == "__main__":
    main()
