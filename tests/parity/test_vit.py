"""The vision transformers against Hugging Face's, timm's own forward pass, and attention written as loops."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from reorder_vit import reference, timm_vit
from reorder_vit.attention import FullAttention
from reorder_vit.backbone import VitBackbone
from reorder_vit.settings import TimmVitSettings, VitMixerSettings, VitSettings

from reorder_core import Context, Grid, Layout
from reorder_core.layout import insert
from reorder_core.model import Model

GRID = Grid(2, 3)
ORDERS = {
    "row_major": Layout.fixed(GRID, torch.arange(6)),
    "shuffled": Layout.fixed(GRID, torch.tensor([4, 1, 5, 0, 2, 3])),
    "of_each_image": Layout(GRID, torch.stack([torch.arange(6).roll(r) for r in range(3)]), torch.tensor([2, 0, 1])),
}
IN_EVERY_ORDER = pytest.mark.parametrize("layout", ORDERS.values(), ids=ORDERS)

# What models of timm differ in: no class token, registers, layer scale, norms of queries and keys, a norm before the
# blocks, pooling by attention, two tokens to read, positions of the patches alone; rotary tables by place, learned in
# each block and head, and with DINOv3's centred places.
NAMES = (
    "test_vit",
    "test_vit2",
    "test_vit3",
    "test_vit4",
    "vit_tiny_patch16_224",
    "vit_xsmall_patch16_clip_224",
    "vit_small_patch14_reg4_dinov2",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_pe_core_tiny_patch16_384",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_dinov3",
)


def timms(name):
    """timm's model of two blocks, weights far from their initial values, so that no scale of 1e-5 hides anything."""
    torch.manual_seed(0)
    made = timm.create_model(name, img_size=(16, 24), patch_size=8, num_classes=0, dynamic_img_size=False)
    made.blocks = made.blocks[:2]
    with torch.no_grad():
        for values in made.parameters():
            values.add_(0.05 * torch.randn_like(values))
    return made.eval()


def ours_of(theirs, name, monkeypatch):
    """Our adapter around the very same weights."""
    monkeypatch.setattr(timm_vit, "timm_model", lambda settings, context: copy.deepcopy(theirs))
    backbone = timm_vit.TimmVit(TimmVitSettings(model=name), Context(GRID, patch=8, channels=3))
    return Model(backbone, GRID, 8, 3, "none").eval()


@pytest.mark.parametrize("name", NAMES)
def test_timms_models_give_in_every_order_what_timm_gives(name, monkeypatch):
    """Tokens on the grid, summary, and the gradient of the images."""
    theirs = timms(name)
    model = ours_of(theirs, name, monkeypatch)
    images_BCHW = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
    features_BLD = theirs.forward_features(images_BCHW)
    summary_BD = theirs.forward_head(features_BLD, pre_logits=True)
    weight_BD = torch.randn(summary_BD.shape, generator=torch.Generator().manual_seed(2))
    (expected_BCHW,) = torch.autograd.grad((summary_BD * weight_BD).sum(), images_BCHW)
    for order, layout in ORDERS.items():
        features = model(images_BCHW, layout)
        placed_BND = layout.restore(features.levels[0].tokens_BND)
        (found_BCHW,) = torch.autograd.grad((features.summary_BD * weight_BD).sum(), images_BCHW)
        for what, found, expected in (
            ("summary", features.summary_BD, summary_BD),
            ("tokens", placed_BND, features_BLD[:, theirs.num_prefix_tokens :]),
            ("gradient", found_BCHW, expected_BCHW),
        ):
            scale = max(1.0, float(expected.detach().abs().max()))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale, msg=f"{what}, {order}")


LAYER = {
    "norm1": ["layernorm_before"],
    "attn.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    "attn.proj": ["attention.o_proj"],
    "norm2": ["layernorm_after"],
    "mlp.fc1": ["mlp.fc1"],
    "mlp.fc2": ["mlp.fc2"],
}


def under_our_names(theirs):
    """Hugging Face's tensors (or their gradients), those of q, k and v joined."""
    ours = {}
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = theirs[f"layernorm.{kind}"]
        for k in range(2):
            for name, sources in LAYER.items():
                ours[f"blocks.{k}.{name}.{kind}"] = torch.cat([theirs[f"layers.{k}.{one}.{kind}"] for one in sources])
    return ours


@IN_EVERY_ORDER
def test_equals_huggingface_with_the_same_weights_outputs_and_gradients(layout):
    transformers = pytest.importorskip("transformers", minversion="5.0")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=(4, 6),
        patch_size=2,
        layer_norm_eps=1e-6,
        initializer_range=0.2,
    )
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    images_BCHW = torch.randn(3, 3, 4, 6)
    embedded_BLD = theirs.embeddings(images_BCHW).detach()
    expected_BLD = theirs(images_BCHW).last_hidden_state
    weight_BLD = torch.randn_like(expected_BLD)
    (expected_BLD * weight_BLD).sum().backward()

    ours = VitBackbone(VitSettings(width=24, depth=2, heads=3), Context(GRID)).eval()
    ours.load_state_dict(under_our_names(theirs.state_dict()) | {"cls_token": embedded_BLD[:1, :1]})
    features = ours(layout.order(embedded_BLD[:, 1:]), layout)
    found_BND = layout.restore(features.levels[0].tokens_BND)
    torch.testing.assert_close(features.summary_BD, expected_BLD[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found_BND, expected_BLD[:, 1:], rtol=0, atol=1e-5)
    ((found_BND * weight_BLD[:, 1:]).sum() + (features.summary_BD * weight_BLD[:, 0]).sum()).backward()
    gradients = under_our_names({name: values.grad for name, values in theirs.named_parameters()})
    for name, expected in gradients.items():
        found = ours.get_parameter(name).grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("special", [(), (0,), (3,), (2, 7)], ids=str)
@IN_EVERY_ORDER
def test_rotary_attention_equals_the_loops(layout, special):
    torch.manual_seed(0)
    module = FullAttention(VitMixerSettings(heads=2, rotary=True, rotary_base=50.0), Context(GRID, width=16)).double()
    patches_BND = torch.randn(3, 6, 16, dtype=torch.float64)
    special_BSD = torch.randn(3, len(special), 16, dtype=torch.float64)
    tokens_BLD = insert(layout.order(patches_BND), special_BSD, special).requires_grad_()
    weight_BLD = torch.randn_like(tokens_BLD)
    found_BLD = module(tokens_BLD, module.plan(layout.with_special(special)))
    inputs = [tokens_BLD, *module.parameters()]
    found = torch.autograd.grad((found_BLD * weight_BLD).sum(), inputs)

    group_B = torch.zeros(3, dtype=torch.int64) if layout.group_B is None else layout.group_B
    parts = []
    for image, group in enumerate(group_B.tolist()):
        places = [GRID.place(patch)[:2] for patch in layout.perm_GN[group].tolist()]
        for place in special:
            places.insert(place, None)
        parts.append(reference.attention(module, tokens_BLD[image : image + 1], places, 50.0))
    expected_BLD = torch.cat(parts)
    torch.testing.assert_close(found_BLD, expected_BLD, rtol=0, atol=1e-5)
    expected = torch.autograd.grad((expected_BLD * weight_BLD).sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
