"""The slow, legible twins of this room: every distance written out, no shift, and the recurrence run as published.

B images, L tokens, H heads, E width of a head, D width, I queries, J keys, M memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_core import Layout
from reorder_transformer_xl.backbone import Block, TransformerXLBackbone
from reorder_transformer_xl.distances import RelativePositions, sinusoid
from reorder_transformer_xl.mixer import TransformerXLMixer


def mixer_reference(
    mixer: TransformerXLMixer, tokens_BLD: Tensor, layout: Layout, relative: RelativePositions | None = None
) -> Tensor:
    """One layer over the whole sequence with all L×L pairs; relative: u, v and distances where the mixer has none."""
    segments = mixer.segments(layout.length, len(layout.special))
    seen_LL = torch.zeros(segments.length, segments.length, dtype=torch.bool)
    same_LL = torch.zeros_like(seen_LL)
    for i in range(segments.length):
        start = i // segments.size * segments.size
        for j in range(segments.length):
            same_LL[i, j] = start <= j < start + segments.size
            remembered = start - segments.memory <= j < start
            seen_LL[i, j] = remembered or (same_LL[i, j] and (j <= i or not mixer.settings.causal))
            if mixer.class_sees_all:
                seen_LL[i, j] |= i == 0 or j == 0
    seen_BLL = seen_LL.expand(tokens_BLD.shape[0], -1, -1)
    if layout.valid_BL is not None:
        seen_BLL = seen_BLL & layout.valid_BL.unsqueeze(1) | torch.eye(segments.length, dtype=torch.bool)
    own, remembered = mixer.qkv_net(tokens_BLD), mixer.qkv_net(tokens_BLD.detach())
    query, key, value = (_heads(part, mixer.heads) for part in own.chunk(3, dim=-1))
    _, old_key, old_value = (_heads(part, mixer.heads) for part in remembered.chunk(3, dim=-1))
    place_L = torch.arange(segments.length)
    distance_LL = place_L[:, None] - place_L[None, :]
    relative = relative or mixer.relative
    score_BHLL = torch.where(
        same_LL,
        _scores(mixer, query, key, distance_LL, relative),
        _scores(mixer, query, old_key, distance_LL, relative),
    )
    if mixer.class_sees_all and relative is not None:
        score_BHLL = torch.cat([_class_row(mixer, query, key, relative), score_BHLL[:, :, 1:]], dim=2)
    share_BHLL = score_BHLL.masked_fill(~seen_BLL.unsqueeze(1), float("-inf")).softmax(dim=-1)
    mixed_BHLE = (share_BHLL * same_LL) @ value + (share_BHLL * ~same_LL) @ old_value
    output: Tensor = mixer.o_net(mixed_BHLE.transpose(1, 2).flatten(2))
    return output


def recurrent_reference(backbone: TransformerXLBackbone, tokens_BLD: Tensor) -> Tensor:
    """All layers, read segment after segment with a list of memories as the authors' training loop keeps it.

    tokens_BLD: class token included. Returns the tokens after the last layer, before the final norm.
    """
    first: TransformerXLMixer = backbone.blocks[0].mixer
    segments = first.segments(tokens_BLD.shape[1])
    memories = [tokens_BLD[:, :0] for _ in backbone.blocks]
    outputs = []
    for part_BID in tokens_BLD.split(segments.size, dim=1):
        for layer, block in enumerate(backbone.blocks):
            before_BMD = memories[layer]
            kept = torch.cat([before_BMD, part_BID.detach()], dim=1)
            memories[layer] = kept[:, max(0, kept.shape[1] - segments.memory) :]
            part_BID = _layer(block, part_BID, before_BMD, backbone.relative)
        outputs.append(part_BID)
    return torch.cat(outputs, dim=1)


def _layer(block: Block, part_BID: Tensor, before_BMD: Tensor, relative: RelativePositions | None) -> Tensor:
    seen_BJD = torch.cat([before_BMD, part_BID], dim=1)
    if block.pre:
        attended = part_BID + _attend(block.mixer, block.norm1(part_BID), block.norm1(seen_BJD), relative)
        return attended if block.mlp is None else attended + block.mlp(block.norm2(attended))
    attended = block.norm1(part_BID + _attend(block.mixer, part_BID, seen_BJD, relative))
    return attended if block.mlp is None else block.norm2(attended + block.mlp(attended))


def _attend(
    mixer: TransformerXLMixer, part_BID: Tensor, seen_BJD: Tensor, relative: RelativePositions | None
) -> Tensor:
    memory = seen_BJD.shape[1] - part_BID.shape[1]
    query = _heads(mixer.qkv_net(part_BID).chunk(3, dim=-1)[0], mixer.heads)
    key, value = (_heads(part, mixer.heads) for part in mixer.qkv_net(seen_BJD).chunk(3, dim=-1)[1:])
    distance_IJ = memory + torch.arange(part_BID.shape[1])[:, None] - torch.arange(seen_BJD.shape[1])[None, :]
    score_BHIJ = _scores(mixer, query, key, distance_IJ, relative)
    if mixer.settings.causal:
        score_BHIJ = score_BHIJ.masked_fill(distance_IJ < 0, float("-inf"))
    output: Tensor = mixer.o_net((score_BHIJ.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    return output


def _scores(
    mixer: TransformerXLMixer,
    query_BHIE: Tensor,
    key_BHJE: Tensor,
    distance_IJ: Tensor,
    relative: RelativePositions | None,
) -> Tensor:
    """[B, H, I, J]: the sum of the terms (a) to (d) of section 3.3, over sqrt(E)."""
    E = query_BHIE.shape[-1]
    if relative is None:
        return torch.einsum("bhie,bhje->bhij", query_BHIE, key_BHJE) / E**0.5
    r_IJHE = mixer.r_net(_vectors(relative, distance_IJ)).unflatten(-1, (mixer.heads, E))
    content = torch.einsum("bhie,bhje->bhij", query_BHIE, key_BHJE)
    content_by_distance = torch.einsum("bhie,ijhe->bhij", query_BHIE, r_IJHE)
    content_bias = torch.einsum("he,bhje->bhj", relative.r_w_bias, key_BHJE).unsqueeze(2)
    distance_bias = torch.einsum("he,ijhe->hij", relative.r_r_bias, r_IJHE)
    return (content + content_by_distance + content_bias + distance_bias) / E**0.5


def _vectors(relative: RelativePositions, distance_IJ: Tensor) -> Tensor:
    """[I, J, D]: the vector of each distance. A learned table knows no distance ahead where attention is causal."""
    if relative.pos_emb is None:
        return (
            sinusoid(distance_IJ.flatten(), relative.width)
            .unflatten(0, distance_IJ.shape)
            .to(torch.get_default_dtype())
        )
    return relative.pos_emb[distance_IJ % relative.pos_emb.shape[0]]


def _class_row(mixer: TransformerXLMixer, query_BHLE: Tensor, key_BHLE: Tensor, relative: RelativePositions) -> Tensor:
    """[B, H, 1, L]: how the released code scores what its class token, at place 0, sees of the tokens after it.

    Its shift has no distances ahead of the reader: key 1 gets none, and key j > 1 gets the first patch's query
    against the distance L + 1 - j.
    """
    L, E = query_BHLE.shape[2:]
    by_content = torch.einsum("bhe,bhje->bhj", query_BHLE[:, :, 0] + relative.r_w_bias, key_BHLE)
    r_LHE = mixer.r_net(_vectors(relative, torch.arange(L)[None])[0]).unflatten(-1, (mixer.heads, E))
    by_distance = [((query_BHLE[:, :, 0] + relative.r_r_bias) * r_LHE[0]).sum(-1)]
    for j in range(1, L):
        scored = (query_BHLE[:, :, 1] + relative.r_r_bias) * r_LHE[(L + 1 - j) % L]
        by_distance.append(scored.sum(-1) * (j > 1))
    return ((by_content + torch.stack(by_distance, dim=-1)) / E**0.5).unsqueeze(2)


def _heads(tokens_BLD: Tensor, heads: int) -> Tensor:
    return tokens_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)
