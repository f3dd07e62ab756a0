"""ARM's fine-tuned classifier body written out step by step, from published names: slow, and easy to check.

Beside it the names and shapes of the published files, written down from the published modules.

B images, N patches, L = N + 1 steps, D width, E inner width, S states, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
_SUFFIXES = ("", "_b", "_c", "_c_b")


def finetuned_shapes(
    width: int, depth: int, state: int, patches: int, patch: int, channels: int = 3, classes: int = 1000
) -> Shapes:
    """Names and shapes of a fine-tuned model, four directions, its head included."""
    return _body(width, depth, state, patch, channels, _SUFFIXES) | {
        "cls_token": (1, 1, width),
        "pos_embed": (1, patches + 1, width),
        "norm_f.weight": (width,),
        "norm_f.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }


def pretrained_shapes(
    width: int, depth: int, state: int, patches: int, patch: int, channels: int = 3, decoder: int = 512
) -> Shapes:
    """Names and shapes of a pretrained model: one direction, no class token, no last norm, and its decoder."""
    shapes = _body(width, depth, state, patch, channels, ("",)) | {
        "pos_embed": (1, patches, width),
        "ar_token": (1, 1, decoder),
        "dec_pos_embed": (1, patches, decoder),
        "mask": (128, 128),
        "enc2dec.weight": (4 * decoder, 4 * width),
        "enc2dec.bias": (4 * decoder,),
        "ar_pred.weight": (768, decoder),
        "ar_pred.bias": (768,),
    }
    for norm, size in {**{f"norm_{k}": width for k in range(1, 5)}, "ar_norm": decoder}.items():
        shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    for k in range(4):
        block = {
            "attn2.q": (decoder, decoder),
            "attn2.kv": (2 * decoder, decoder),
            "attn2.proj": (decoder, decoder),
            "mlp.fc1": (4 * decoder, decoder),
            "mlp.fc2": (decoder, 4 * decoder),
        }
        for name, shape in block.items():
            shapes |= {f"dec_block.{k}.{name}.weight": shape, f"dec_block.{k}.{name}.bias": shape[:1]}
        for norm in ("norm2_1", "norm2_2", "norm2"):
            shapes |= {f"dec_block.{k}.{norm}.{part}": (decoder,) for part in ("weight", "bias")}
    return shapes


def _body(width: int, depth: int, state: int, patch: int, channels: int, suffixes: tuple[str, ...]) -> Shapes:
    """Patch embedding and blocks; the mixer's inner width is D."""
    rank, hidden = -(-width // 16), width * 4 * 2 // 3
    block: Shapes = {
        "mixer.in_proj.weight": (2 * width, width),
        "mixer.out_proj.weight": (width, width),
        "mlp.w1.weight": (hidden, width),
        "mlp.w1.bias": (hidden,),
        "mlp.w2.weight": (hidden, width),
        "mlp.w2.bias": (hidden,),
        "mlp.w3.weight": (width, hidden),
        "mlp.w3.bias": (width,),
    }
    for norm in ("norm1", "norm2"):
        block |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for suffix in suffixes:
        block |= {
            f"mixer.A{suffix}_log": (width, state),
            f"mixer.D{suffix}": (width,),
            f"mixer.conv1d{suffix}.weight": (width, 1, 4),
            f"mixer.conv1d{suffix}.bias": (width,),
            f"mixer.x_proj{suffix}.weight": (rank + 2 * state, width),
            f"mixer.dt_proj{suffix}.weight": (width, rank),
            f"mixer.dt_proj{suffix}.bias": (width,),
        }
    shapes = {f"layers.{k}.{name}": shape for k in range(depth) for name, shape in block.items()}
    embedding: Shapes = {"patch_embed.proj.weight": (width, channels, patch, patch), "patch_embed.proj.bias": (width,)}
    return shapes | embedding


def arm_reference(
    state: State, images_BCHW: Tensor, patch: int, order_N: Tensor | None = None, readout: str = "mean"
) -> Tensor:
    """The summary [B, D] of a fine-tuned ARM with the tensors of `state`, before its head.

    order_N: the order of the patches (`order[slot] = patch`); None reads row by row, as published. The class token
    stands before patch N // 2 of the sequence, and has its own row of `pos_embed` there; a patch keeps the row of its
    place. The columns are those of the sequence laid out as rows × columns of the grid.
    """
    weight = state["patch_embed.proj.weight"]
    rows, columns = images_BCHW.shape[2] // patch, images_BCHW.shape[3] // patch
    N, middle = rows * columns, rows * columns // 2
    tokens = []
    for number in range(N):
        y, x = patch * (number // columns), patch * (number % columns)
        pixels = images_BCHW[:, :, y : y + patch, x : x + patch]
        token_BD = torch.einsum("bcyx,dcyx->bd", pixels, weight) + state["patch_embed.proj.bias"]
        tokens.append(token_BD + state["pos_embed"][0, number if number < middle else number + 1])
    slots = range(N) if order_N is None else order_N.tolist()
    class_BD = (state["cls_token"][0, 0] + state["pos_embed"][0, middle]).expand(len(images_BCHW), -1)
    sequence = [tokens[number] for number in slots]
    hidden = torch.stack([*sequence[:middle], class_BD, *sequence[middle:]], dim=1)
    for k in range(1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))):
        block = {name.removeprefix(f"layers.{k}."): value for name, value in state.items() if f"layers.{k}." in name}
        hidden = hidden + four_directions(_under(block, "mixer."), _layer_norm(block, "norm1", hidden), rows, columns)
        normed = _layer_norm(block, "norm2", hidden)
        gated = functional.silu(_linear(block, "mlp.w1", normed)) * _linear(block, "mlp.w2", normed)
        hidden = hidden + _linear(block, "mlp.w3", gated)
    hidden = _layer_norm(state, "norm_f", hidden)
    if readout == "class":
        return hidden[:, middle]
    return torch.cat([hidden[:, :middle], hidden[:, middle + 1 :]], dim=1).mean(dim=1)


def four_directions(state: State, tokens_BLD: Tensor, rows: int, columns: int) -> Tensor:
    """One mixer: the sequence forwards, backwards, by columns, by columns backwards; gated each, averaged.

    By columns: without the class token (in the middle), the sequence is a rows × columns rectangle that is
    transposed; the class token goes back to the middle.
    """
    middle = rows * columns // 2
    x_and_z = tokens_BLD @ state["in_proj.weight"].T
    along = list(range(tokens_BLD.shape[1]))
    patches = along[:middle] + along[middle + 1 :]
    transposed = [patches[row * columns + column] for column in range(columns) for row in range(rows)]
    by_columns = [*transposed[:middle], middle, *transposed[middle:]]
    total = torch.zeros_like(x_and_z[..., : x_and_z.shape[-1] // 2])
    for suffix, path in (("", along), ("_b", along[::-1]), ("_c", by_columns), ("_c_b", by_columns[::-1])):
        y = _one_direction(state, suffix, x_and_z[:, path])
        for step, place in enumerate(path):
            total[:, place] = total[:, place] + y[:, step]
    return (total / 4) @ state["out_proj.weight"].T


def _one_direction(state: State, suffix: str, x_and_z: Tensor) -> Tensor:
    """Convolution, selective scan and gate, step by step: [B, L, 2 E] to [B, L, E]."""
    x, z = x_and_z.chunk(2, dim=-1)
    taps, bias = state[f"conv1d{suffix}.weight"][:, 0], state[f"conv1d{suffix}.bias"]
    A_ES = -state[f"A{suffix}_log"].exp()
    rank, states = state[f"dt_proj{suffix}.weight"].shape[1], A_ES.shape[1]
    hidden_BES = x.new_zeros(x.shape[0], x.shape[2], states)
    outputs = []
    for step in range(x.shape[1]):
        u = bias
        for back in range(min(taps.shape[1], step + 1)):
            u = u + taps[:, -1 - back] * x[:, step - back]
        u = functional.silu(u)
        dt, B, C = (u @ state[f"x_proj{suffix}.weight"].T).split([rank, states, states], dim=-1)
        delta = functional.softplus(_linear(state, f"dt_proj{suffix}", dt)).unsqueeze(-1)
        hidden_BES = torch.exp(delta * A_ES) * hidden_BES + delta * u.unsqueeze(-1) * B.unsqueeze(1)
        y = (hidden_BES * C.unsqueeze(1)).sum(-1) + state[f"D{suffix}"] * u
        outputs.append(y * functional.silu(z[:, step]))
    return torch.stack(outputs, dim=1)


def _under(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _linear(state: State, name: str, tokens: Tensor) -> Tensor:
    return tokens @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _layer_norm(state: State, name: str, tokens: Tensor) -> Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])
