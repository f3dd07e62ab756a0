"""The Triton kernels of the selective scan: a program walks a run of steps for a block of channels of one image.

States and adjoints stay in registers as [N, channels] tensors, float32; nothing of size [L, D] leaves a kernel but
results. What makes it fast:

- Lanes lie along the channels, innermost in memory too, and each holds all N states of its channel: sums over states
  never leave a lane. Triton would give a lane four neighbouring channels for the sake of wide loads of A and of kept
  states, and so spread the states over lanes; it does not where it knows nothing of their alignment (UNALIGNED).
- Sums over channels, for dB and dC, would be five shuffles a state. They are matrix products with a column of ones
  instead, one column for each step of a group, on tensor cores.
- Steps come in groups that are unrolled: a group's loads are issued before its first use, and the backward pass holds
  a group's states and decays in registers, so that it takes each exponential once.
- exp(x) is 2^(x log2 e), as that is what the hardware has.

Loops are written with `while`, as older interpreters can not count with a tensor in `range`.

`u`, `delta`, `z`, `y` and their gradients may be of any float type; everything else is float32. `…_b` and `…_t` are
strides of image and step; the innermost one is 1. A step beyond L has a step size of 0: it changes nothing.
"""

# mypy: ignore-errors
# Triton's own compiler reads these functions; Python's types say nothing of them.

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
COLUMNS = tl.constexpr(8 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8) else 16)
"""Of the matrix of ones; a group has no more steps. Older releases multiply no matrix with fewer than 16."""
UNALIGNED = ["A", "start", "carry", "end", "dA"]


@triton.jit
def _place(width, BLOCK_D: tl.constexpr):
    """Block of channels, image, run and number of runs. The grid is (images × blocks, runs): y is bounded, x is not."""
    blocks = tl.cdiv(width, BLOCK_D)
    program = tl.program_id(0)
    return program % blocks, (program // blocks).to(tl.int64), tl.program_id(1), tl.num_programs(1)


@triton.jit
def _row(pointer, step, t, L, n_N, STATES: tl.constexpr, N: tl.constexpr):
    """B or C of step t [N]. Beyond L that of the last step: what it is multiplied by is 0 there."""
    at = tl.cast(tl.minimum(t, L - 1), tl.int64) * step
    if N == STATES:  # noqa: SIM108 - chosen when it is compiled
        row_N = tl.load(pointer + at + n_N)
    else:
        row_N = tl.load(pointer + at + n_N, mask=n_N < STATES, other=0.0)
    return row_N


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(tl.minimum(x * -LOG2_E, 126.0)))


@triton.jit
def _step_size(raw, bias, inside, SOFTPLUS: tl.constexpr):
    """delta of one step from what came in. softplus(x) = max(x, 0) + log(1 + e), e = exp(-|x|): nothing overflows.

    Where 1 + e rounds, log(1 + e) e / ((1 + e) - 1) has the digits that log(1 + e) alone has lost.
    """
    step = raw.to(tl.float32) + bias
    if SOFTPLUS:
        e = tl.exp2(tl.abs(step) * -LOG2_E)
        rounded = 1.0 + e
        kept = rounded - 1.0
        step = tl.maximum(step, 0.0) + tl.where(kept == 0.0, e, tl.log(rounded) * (e / tl.maximum(kept, 1e-30)))
    return tl.where(inside, step, 0.0)


@triton.jit
def _advance(
    h_ND, u, delta, B, u_t, delta_t, B_t, t, L, n_N, d_D, here_D, rate_ND, bias_D,
    STATES: tl.constexpr, N: tl.constexpr, GROUP: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """The state a group of steps further on, and the sum of their sizes. Pointers are those of the image's step 0."""
    at = tl.cast(t, tl.int64)
    us, raws, Bs = (), (), ()
    for j in tl.static_range(GROUP):
        inside = here_D & (t + j < L)
        us += (tl.load(u + at * u_t + (j * u_t + d_D), mask=inside, other=0.0),)
        raws += (tl.load(delta + at * delta_t + (j * delta_t + d_D), mask=inside, other=0.0),)
        Bs += (_row(B, B_t, t + j, L, n_N, STATES, N),)
    total_D = bias_D * 0.0
    for j in tl.static_range(GROUP):
        delta_D = _step_size(raws[j], bias_D, here_D & (t + j < L), SOFTPLUS)
        write_ND = (delta_D * us[j].to(tl.float32))[None, :] * Bs[j][:, None]
        h_ND = tl.exp2(delta_D[None, :] * rate_ND) * h_ND + write_ND
        total_D += delta_D
    return h_ND, total_D


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def forward_kernel(
    u, delta, A, B, C, D, z, bias, y, start, carry,
    u_b, u_t, delta_b, delta_t, B_b, B_t, C_b, C_t, z_b, z_t,
    L, width, groups,
    STATES: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
    SOFTPLUS: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr, BIAS: tl.constexpr,
    KEEP: tl.constexpr, CARRIED: tl.constexpr,
):  # fmt: skip
    """y of the steps of one run, and (KEEP) the state before each group."""
    block, image, run, runs = _place(width, BLOCK_D)
    n_N, d_D = tl.arange(0, N), block * BLOCK_D + tl.arange(0, BLOCK_D)
    has_N, here_D = n_N < STATES, d_D < width
    at_ND, inside_ND = n_N[:, None] * width + d_D[None, :], has_N[:, None] & here_D[None, :]
    rate_ND = tl.load(A + at_ND, mask=inside_ND, other=0.0) * LOG2_E
    bias_D = tl.zeros([BLOCK_D], tl.float32)
    if BIAS:
        bias_D = tl.load(bias + d_D, mask=here_D, other=0.0)
    skip_D = bias_D
    if SKIP:
        skip_D = tl.load(D + d_D, mask=here_D, other=0.0)
    u, delta, z = u + image * u_b, delta + image * delta_b, z + image * z_b
    B, C, y = B + image * B_b, C + image * C_b, y + image * L * width
    start += image * tl.cdiv(L, GROUP) * STATES * width
    h_ND = tl.zeros([N, BLOCK_D], tl.float32)
    if CARRIED:
        h_ND = tl.load(carry + (image * runs + run) * STATES * width + at_ND, mask=inside_ND, other=0.0)
    group = run * groups
    while group < tl.minimum((run + 1) * groups, tl.cdiv(L, GROUP)):
        t = group * GROUP
        at = tl.cast(t, tl.int64)
        if KEEP:
            tl.store(start + tl.cast(group, tl.int64) * STATES * width + at_ND, h_ND, mask=inside_ND)
        us, raws, zs, Bs, Cs = (), (), (), (), ()
        for j in tl.static_range(GROUP):
            inside = here_D & (t + j < L)
            us += (tl.load(u + at * u_t + (j * u_t + d_D), mask=inside, other=0.0),)
            raws += (tl.load(delta + at * delta_t + (j * delta_t + d_D), mask=inside, other=0.0),)
            if GATE:
                zs += (tl.load(z + at * z_t + (j * z_t + d_D), mask=inside, other=0.0),)
            Bs += (_row(B, B_t, t + j, L, n_N, STATES, N),)
            Cs += (_row(C, C_t, t + j, L, n_N, STATES, N),)
        for j in tl.static_range(GROUP):
            inside = here_D & (t + j < L)
            u_D, delta_D = us[j].to(tl.float32), _step_size(raws[j], bias_D, inside, SOFTPLUS)
            write_ND = (delta_D * u_D)[None, :] * Bs[j][:, None]
            h_ND = tl.exp2(delta_D[None, :] * rate_ND) * h_ND + write_ND
            y_D = tl.sum(h_ND * Cs[j][:, None], 0)
            if SKIP:
                y_D += skip_D * u_D
            if GATE:
                z_D = zs[j].to(tl.float32)
                y_D *= z_D * _sigmoid(z_D)
            tl.store(y + at * width + (j * width + d_D), y_D, mask=inside)
        group += 1


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def ends_kernel(
    u, delta, A, B, bias, end, total,
    u_b, u_t, delta_b, delta_t, B_b, B_t,
    L, width, groups,
    STATES: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """The state that each run ends in when it starts from zero, and the sum of its step sizes."""
    block, image, run, runs = _place(width, BLOCK_D)
    n_N, d_D = tl.arange(0, N), block * BLOCK_D + tl.arange(0, BLOCK_D)
    has_N, here_D = n_N < STATES, d_D < width
    at_ND, inside_ND = n_N[:, None] * width + d_D[None, :], has_N[:, None] & here_D[None, :]
    rate_ND = tl.load(A + at_ND, mask=inside_ND, other=0.0) * LOG2_E
    bias_D = tl.zeros([BLOCK_D], tl.float32)
    if BIAS:
        bias_D = tl.load(bias + d_D, mask=here_D, other=0.0)
    u, delta, B = u + image * u_b, delta + image * delta_b, B + image * B_b
    h_ND, total_D = tl.zeros([N, BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    group = run * groups
    while group < tl.minimum((run + 1) * groups, tl.cdiv(L, GROUP)):
        h_ND, more_D = _advance(
            h_ND, u, delta, B, u_t, delta_t, B_t, group * GROUP, L, n_N, d_D, here_D, rate_ND, bias_D,
            STATES, N, GROUP, SOFTPLUS,
        )  # fmt: skip
        total_D += more_D
        group += 1
    part = (image * runs + run) * width
    tl.store(end + part * STATES + at_ND, h_ND, mask=inside_ND)
    tl.store(total + part + d_D, total_D, mask=here_D)


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def adjoint_ends_kernel(
    dy, delta, A, C, z, bias, end, total,
    dy_b, dy_t, delta_b, delta_t, C_b, C_t, z_b, z_t,
    L, width, groups,
    STATES: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
    SOFTPLUS: tl.constexpr, GATE: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """The adjoint that each run hands to the run before it when it is handed zero, and the sum of its step sizes."""
    block, image, run, runs = _place(width, BLOCK_D)
    n_N, d_D = tl.arange(0, N), block * BLOCK_D + tl.arange(0, BLOCK_D)
    has_N, here_D = n_N < STATES, d_D < width
    at_ND, inside_ND = n_N[:, None] * width + d_D[None, :], has_N[:, None] & here_D[None, :]
    rate_ND = tl.load(A + at_ND, mask=inside_ND, other=0.0) * LOG2_E
    bias_D = tl.zeros([BLOCK_D], tl.float32)
    if BIAS:
        bias_D = tl.load(bias + d_D, mask=here_D, other=0.0)
    dy, delta, z, C = dy + image * dy_b, delta + image * delta_b, z + image * z_b, C + image * C_b
    g_ND, total_D = tl.zeros([N, BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    first, beyond = run * groups, tl.minimum((run + 1) * groups, tl.cdiv(L, GROUP))
    group = beyond - 1
    while group >= first:
        t = group * GROUP
        at = tl.cast(t, tl.int64)
        dys, raws, zs, Cs = (), (), (), ()
        for j in tl.static_range(GROUP):
            inside = here_D & (t + j < L)
            dys += (tl.load(dy + at * dy_t + (j * dy_t + d_D), mask=inside, other=0.0),)
            raws += (tl.load(delta + at * delta_t + (j * delta_t + d_D), mask=inside, other=0.0),)
            if GATE:
                zs += (tl.load(z + at * z_t + (j * z_t + d_D), mask=inside, other=0.0),)
            Cs += (_row(C, C_t, t + j, L, n_N, STATES, N),)
        for j in tl.static_range(GROUP - 1, -1, -1):
            dy_D, delta_D = dys[j].to(tl.float32), _step_size(raws[j], bias_D, here_D & (t + j < L), SOFTPLUS)
            if GATE:
                z_D = zs[j].to(tl.float32)
                dy_D *= z_D * _sigmoid(z_D)
            g_ND = tl.exp2(delta_D[None, :] * rate_ND) * (dy_D[None, :] * Cs[j][:, None] + g_ND)
            total_D += delta_D
        group -= 1
    part = (image * runs + run) * width
    tl.store(end + part * STATES + at_ND, g_ND, mask=inside_ND)
    tl.store(total + part + d_D, total_D, mask=here_D)


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def carry_kernel(
    end, total, A, width, runs, STATES: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, REVERSED: tl.constexpr
):  # fmt: skip
    """Turn what runs hand on when they get zero into what each run gets, in place."""
    block, image, _, _ = _place(width, BLOCK_D)
    n_N, d_D = tl.arange(0, N), block * BLOCK_D + tl.arange(0, BLOCK_D)
    at_ND, inside_ND = n_N[:, None] * width + d_D[None, :], (n_N < STATES)[:, None] & (d_D < width)[None, :]
    rate_ND = tl.load(A + at_ND, mask=inside_ND, other=0.0) * LOG2_E
    carry_ND = tl.zeros([N, BLOCK_D], tl.float32)
    k = 0
    while k < runs:
        part = (image * runs + (runs - 1 - k if REVERSED else k)) * width
        total_D = tl.load(total + part + d_D, mask=d_D < width, other=0.0)
        end_ND = tl.load(end + part * STATES + at_ND, mask=inside_ND, other=0.0)
        tl.store(end + part * STATES + at_ND, carry_ND, mask=inside_ND)
        carry_ND = tl.exp2(total_D[None, :] * rate_ND) * carry_ND + end_ND
        k += 1


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def backward_kernel(
    dy, u, delta, A, B, C, D, z, bias, start, carry,
    du, ddelta, dz, dA, dB, dC, dD, dbias,
    dy_b, dy_t, u_b, u_t, delta_b, delta_t, B_b, B_t, C_b, C_t, z_b, z_t,
    L, width, groups,
    STATES: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr, EVERY: tl.constexpr,
    SOFTPLUS: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr, BIAS: tl.constexpr, CARRIED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of one run, last group first. Of those that are sums over programs, each writes its own part."""
    block, image, run, runs = _place(width, BLOCK_D)
    n_N, d_D = tl.arange(0, N), block * BLOCK_D + tl.arange(0, BLOCK_D)
    has_N, here_D = n_N < STATES, d_D < width
    at_ND, inside_ND = n_N[:, None] * width + d_D[None, :], has_N[:, None] & here_D[None, :]
    rate_ND = tl.load(A + at_ND, mask=inside_ND, other=0.0) * LOG2_E
    bias_D = tl.zeros([BLOCK_D], tl.float32)
    if BIAS:
        bias_D = tl.load(bias + d_D, mask=here_D, other=0.0)
    skip_D = bias_D
    if SKIP:
        skip_D = tl.load(D + d_D, mask=here_D, other=0.0)
    dy, u, delta, z = dy + image * dy_b, u + image * u_b, delta + image * delta_b, z + image * z_b
    B, C = B + image * B_b, C + image * C_b
    du, ddelta, dz = du + image * L * width, ddelta + image * L * width, dz + image * L * width
    row = (image * tl.cdiv(width, BLOCK_D) + block) * L * STATES
    dB, dC = dB + row, dC + row
    start += image * tl.cdiv(L, GROUP * EVERY) * STATES * width
    part = (image * runs + run) * width
    carry_ND, dA_ND = tl.zeros([N, BLOCK_D], tl.float32), tl.zeros([N, BLOCK_D], tl.float32)
    if CARRIED:
        carry_ND = tl.load(carry + part * STATES + at_ND, mask=inside_ND, other=0.0)
    column_G = tl.arange(0, COLUMNS)
    dD_D, dbias_D = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    first, beyond = run * groups, tl.minimum((run + 1) * groups, tl.cdiv(L, GROUP))
    group = beyond - 1
    while group >= first:
        t = group * GROUP
        at = tl.cast(t, tl.int64)
        us, raws, dys, zs = (), (), (), ()
        for j in tl.static_range(GROUP):
            inside = here_D & (t + j < L)
            us += (tl.load(u + at * u_t + (j * u_t + d_D), mask=inside, other=0.0),)
            raws += (tl.load(delta + at * delta_t + (j * delta_t + d_D), mask=inside, other=0.0),)
            dys += (tl.load(dy + at * dy_t + (j * dy_t + d_D), mask=inside, other=0.0),)
            if GATE:
                zs += (tl.load(z + at * z_t + (j * z_t + d_D), mask=inside, other=0.0),)
        kept = group // EVERY
        h_ND = tl.load(start + tl.cast(kept, tl.int64) * STATES * width + at_ND, mask=inside_ND, other=0.0)
        between = kept * EVERY
        while between < group:
            h_ND, _ = _advance(
                h_ND, u, delta, B, u_t, delta_t, B_t, between * GROUP, L, n_N, d_D, here_D, rate_ND, bias_D,
                STATES, N, GROUP, SOFTPLUS,
            )  # fmt: skip
            between += 1
        hs, decays, deltas, gated = (h_ND,), (), (), ()
        for j in tl.static_range(GROUP):
            inside = here_D & (t + j < L)
            B_N = _row(B, B_t, t + j, L, n_N, STATES, N)
            u_D, dy_D = us[j].to(tl.float32), dys[j].to(tl.float32)
            delta_D = _step_size(raws[j], bias_D, inside, SOFTPLUS)
            decay_ND = tl.exp2(delta_D[None, :] * rate_ND)
            h_ND = decay_ND * h_ND + (delta_D * u_D)[None, :] * B_N[:, None]
            if GATE:
                C_N = _row(C, C_t, t + j, L, n_N, STATES, N)
                y_D = tl.sum(h_ND * C_N[:, None], 0)
                if SKIP:
                    y_D += skip_D * u_D
                z_D = zs[j].to(tl.float32)
                open_D = _sigmoid(z_D)
                dz_D = dy_D * y_D * open_D * (1.0 + z_D * (1.0 - open_D))
                tl.store(dz + at * width + (j * width + d_D), dz_D, mask=inside)
                dy_D *= z_D * open_D
            hs += (h_ND,)
            decays += (decay_ND,)
            deltas += (delta_D,)
            gated += (dy_D,)
        dB_NG, dC_NG = tl.zeros([N, COLUMNS], tl.float32), tl.zeros([N, COLUMNS], tl.float32)
        for j in tl.static_range(GROUP - 1, -1, -1):
            inside = here_D & (t + j < L)
            u_D, delta_D, dy_D = us[j].to(tl.float32), deltas[j], gated[j]
            B_N = _row(B, B_t, t + j, L, n_N, STATES, N)
            C_N = _row(C, C_t, t + j, L, n_N, STATES, N)
            g_ND = dy_D[None, :] * C_N[:, None] + carry_ND
            if N >= 16:
                column_DG = (column_G[None, :] == j).to(tl.float32) + tl.zeros([BLOCK_D, 1], tl.float32)
                dC_NG = tl.dot(dy_D[None, :] * hs[j + 1], column_DG, dC_NG, input_precision=PRECISION)
                dB_NG = tl.dot((delta_D * u_D)[None, :] * g_ND, column_DG, dB_NG, input_precision=PRECISION)
            else:
                has = has_N & (t + j < L)
                tl.store(dC + at * STATES + (j * STATES + n_N), tl.sum(dy_D[None, :] * hs[j + 1], 1), mask=has)
                tl.store(dB + at * STATES + (j * STATES + n_N), tl.sum((delta_D * u_D)[None, :] * g_ND, 1), mask=has)
            dwrite_D = tl.sum(g_ND * B_N[:, None], 0)
            carry_ND = decays[j] * g_ND
            dexponent_ND = carry_ND * hs[j]
            dA_ND += delta_D[None, :] * dexponent_ND
            ddelta_D = tl.sum(dexponent_ND * rate_ND, 0) * LN_2 + dwrite_D * u_D
            du_D = dwrite_D * delta_D
            if SKIP:
                du_D += skip_D * dy_D
                dD_D += dy_D * u_D
            if SOFTPLUS:
                ddelta_D *= _sigmoid(raws[j].to(tl.float32) + bias_D)
            if BIAS:
                dbias_D += tl.where(inside, ddelta_D, 0.0)
            tl.store(du + at * width + (j * width + d_D), du_D, mask=inside)
            tl.store(ddelta + at * width + (j * width + d_D), ddelta_D, mask=inside)
        if N >= 16:
            at_NG = (n_N[:, None] + column_G[None, :] * STATES) + at * STATES
            inside_NG = has_N[:, None] & (column_G[None, :] < tl.minimum(GROUP, L - t))
            tl.store(dC + at_NG, dC_NG, mask=inside_NG)
            tl.store(dB + at_NG, dB_NG, mask=inside_NG)
        group -= 1
    tl.store(dA + part * STATES + at_ND, dA_ND, mask=inside_ND)
    if SKIP:
        tl.store(dD + part + d_D, dD_D, mask=here_D)
    if BIAS:
        tl.store(dbias + part + d_D, dbias_D, mask=here_D)
