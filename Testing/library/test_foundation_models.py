"""Foundation models: equal to SAM's own modules, any canvas, batches, checkpointing, head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from SAMSemiSegLib.foundation import cache
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.foundation.models.sam_vit import SamViT
from SAMSemiSegLib.foundation.segment_anything_import import import_segment_anything
from SAMSemiSegLib.foundation.semantic import SemanticSAM
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.run.settings import FoundationSettings

TINY = ("sam_vit_tiny_random", "lite_tiny_random")


def scatter(module: nn.Module) -> None:
    """Random values where SAM starts from zeros or ones (position embeddings, norms)."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def test_vit_b_equals_segment_anything() -> None:
    """ViT-B through us and by ``build_sam_vit_b``, same weights: same embedding and masks."""
    theirs = import_segment_anything("build_sam").build_sam_vit_b().eval()
    scatter(theirs)
    ours = FOUNDATION["sam_vit_b"].build().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    # SAM's own encoder takes 1024 pixels only because its table of positions has that size.
    grid = 8
    table = ours.image_encoder.pos_embed.detach()[:, :grid, :grid].clone()
    theirs.image_encoder.pos_embed = nn.Parameter(table)
    ours.image_encoder.pos_embed = nn.Parameter(table)
    canvas = torch.randn(1, 1, 16 * grid, 16 * grid)
    with torch.no_grad():
        expected = theirs.image_encoder(canvas.expand(-1, 3, -1, -1))
        embedding = ours.encode(canvas)
        assert torch.equal(embedding, expected)
        masks = [
            model.mask_decoder.predict_masks(
                image_embeddings=embedding,
                image_pe=model.prompt_encoder.pe_layer((grid, grid)).unsqueeze(0),
                sparse_prompt_embeddings=embedding.new_zeros(1, 0, 256),
                dense_prompt_embeddings=model.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1),
            )[0]
            for model in (ours, theirs)
        ]
    assert torch.equal(*masks)


def test_full_size_canvas_uses_the_position_table_as_it_is() -> None:
    """At the pretraining's size nothing is interpolated: equal to SAM's encoder end to end."""
    modeling = import_segment_anything()
    ours = SamViT(32, 2, 2, (1,), image_side=256).eval()
    scatter(ours)
    theirs = modeling.ImageEncoderViT(
        img_size=256, embed_dim=32, depth=2, num_heads=2, out_chans=256, use_rel_pos=True,
        window_size=14, global_attn_indexes=(1,),
        norm_layer=lambda n: nn.LayerNorm(n, eps=1e-6),
    )  # fmt: skip
    theirs.load_state_dict(ours.image_encoder.state_dict(), strict=True)
    image = torch.randn(2, 3, 256, 256)
    with torch.no_grad():
        assert torch.equal(ours.image_encoder(image), theirs(image))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (352, 288)])
def test_any_canvas_runs(name: str, size: tuple[int, int]) -> None:
    model = SemanticSAM(FOUNDATION[name].build().eval(), channels=3)
    canvas = torch.randn(1, 1, *size)
    with torch.no_grad():
        embedding = model.foundation.encode(canvas)
        logits = model(canvas)
    stride = 4 * model.foundation.downscale
    assert embedding.shape == (1, 256, size[0] // stride, size[1] // stride)
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", TINY)
def test_a_batch_is_its_images(name: str) -> None:
    """SAM's decoder would mix up images and prompts; ours answers each canvas by itself."""
    model = SemanticSAM(FOUNDATION[name].build().eval(), channels=5)
    canvases = torch.randn(3, 1, 64, 96)
    with torch.no_grad():
        together = model(canvases)
        alone = torch.cat([model(canvas[None]) for canvas in canvases])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = FOUNDATION[name].build().eval()
        model.enable_gradient_checkpointing(checkpointing)
        model.encode(torch.linspace(-1, 1, 64 * 64).view(1, 1, 64, 64)).square().mean().backward()
        return [p.grad for p in model.image_encoder.parameters() if p.grad is not None]

    kept, again = gradients(False), gradients(True)
    assert len(kept) == len(again) > 10
    for a, b in zip(kept, again, strict=True):
        torch.testing.assert_close(a, b)


def test_pretrained_tokens_are_sams_and_new_ones_are_not() -> None:
    model = FOUNDATION["lite_tiny_random"].build()
    tokens = model.mask_decoder.mask_tokens.weight
    kept = SemanticSAM(model, 6, "pretrained").decoder
    new = SemanticSAM(model, 6, "new").decoder
    spread = tokens.std()
    for k in range(6):
        assert (kept.mask_tokens.weight[k] - tokens[k % 4]).std() < 0.2 * spread
        assert (new.mask_tokens.weight[k] - tokens[k % 4]).std() > 0.5 * spread
    assert not torch.equal(kept.mask_tokens.weight[0], kept.mask_tokens.weight[4])
    theirs = model.mask_decoder.output_hypernetworks_mlps[1].layers[0].weight
    assert torch.equal(kept.output_hypernetworks_mlps[5].layers[0].weight, theirs)
    assert not torch.equal(new.output_hypernetworks_mlps[5].layers[0].weight, theirs)


def test_folded_norms_equal_batch_norm() -> None:
    """In eval mode the batch norm is folded into its convolution: the same numbers."""
    model = FOUNDATION["lite_tiny_random"].build()
    layer = model.image_encoder.layers[0].blocks[0].conv2
    scatter(layer)
    layer.bn.running_mean.uniform_(-1, 1)
    layer.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 32, 9, 7)
    layer.eval()
    torch.testing.assert_close(layer(x), layer.bn(layer.c(x)), atol=1e-5, rtol=1e-5)


def test_lite_medsam_loads_all_its_tensors() -> None:
    if not cache.is_cached("lite_medsam"):
        pytest.skip("the weights of lite_medsam are not on this machine")
    model = load_model(FoundationSettings(name="lite_medsam"))
    assert len(model.state_dict()) == 435
    with torch.no_grad():
        assert model.encode(torch.randn(1, 1, 64, 96)).shape == (1, 256, 16, 24)


def test_window_attention_is_the_same_with_and_without_gradients() -> None:
    """Two kernels, one result."""
    model = FOUNDATION["lite_tiny_random"].build().eval()
    scatter(model)
    canvas = torch.randn(1, 1, 96, 64)
    with torch.no_grad():
        expected = model.encode(canvas)
    torch.testing.assert_close(model.encode(canvas), expected, atol=1e-5, rtol=1e-4)
