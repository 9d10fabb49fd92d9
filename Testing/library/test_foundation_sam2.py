"""SAM 2: equal to the package's own modules, any canvas, adapters, strategies, official files."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.adapters.freeze import count_trainable
from SAMSemiSegLib.finetuning.adapters.houlsby import add_adapters
from SAMSemiSegLib.finetuning.adapters.lora import add_lora
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, FinetuningStrategy, Sample
from SAMSemiSegLib.foundation import package_import
from SAMSemiSegLib.foundation.model import FOUNDATION, FoundationModel
from SAMSemiSegLib.foundation.models.sam2 import MEAN, SPREAD, from_official, import_sam2
from SAMSemiSegLib.foundation.segment_anything_import import import_segment_anything
from SAMSemiSegLib.foundation.semantic import SemanticDecoder, SemanticSAM
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.run.settings import FoundationSettings, PseudoLabelSettings, StitchingSettings
from SAMSemiSegLib.training.progress import Progress

TINY = "sam2_tiny_random"


@pytest.fixture
def sam2() -> None:
    """Skips where the package is not installed."""
    try:
        import_sam2()
    except InputError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def tiny(sam2: None) -> FoundationModel:
    model = FOUNDATION[TINY].build().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():  # the tables of positions start as zeros
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def packages_own(image_side: int = 256) -> nn.Module:
    """The package's whole model, as its configurations have it, but small."""
    trunk = import_sam2("modeling.backbones.hieradet").Hiera(
        embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_att_blocks=(3,),
        window_pos_embed_bkg_spatial_size=(7, 7),
    )  # fmt: skip
    encoder = import_sam2("modeling.backbones.image_encoder")
    neck = encoder.FpnNeck(
        import_sam2("modeling.position_encoding").PositionEmbeddingSine(256, warmup_cache=False),
        256, trunk.channel_list, fpn_top_down_levels=[2, 3], fpn_interp_model="nearest",
    )  # fmt: skip
    model: nn.Module = import_sam2("modeling.sam2_base").SAM2Base(
        encoder.ImageEncoder(trunk, neck, scalp=1), nn.Identity(), nn.Identity(),
        image_size=image_side, directly_add_no_mem_embed=True, use_high_res_features_in_sam=True,
        iou_prediction_use_sigmoid=True, use_obj_ptrs_in_encoder=True, pred_obj_scores=True,
        pred_obj_scores_mlp=True, fixed_no_obj_ptr=True, use_multimask_token_for_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True, no_obj_embed_spatial=True,
    )  # fmt: skip
    transformer = import_sam2("modeling.sam.transformer").TwoWayTransformer(1, 256, 8, 64)
    model.sam_mask_decoder.transformer = transformer
    return model.eval()


def official_of(model: FoundationModel, path: Path) -> nn.Module:
    """The package's model with the weights of ours; its official file is written to ``path``."""
    theirs = packages_own()
    state = theirs.state_dict()
    names = {
        k: k.replace("sam_mask_decoder.", "mask_decoder.").replace("sam_prompt", "prompt")
        for k in state
    }
    ours = model.state_dict()
    for theirs_name, name in names.items():
        if name in ours:
            state[theirs_name] = ours.pop(name)
    assert not ours
    theirs.load_state_dict(state, strict=True)
    torch.save({"model": state}, path)
    return theirs


@pytest.mark.parametrize("size", [(256, 256), (64, 96), (160, 96)])
def test_embedding_is_the_image_predictors(
    tiny: FoundationModel, tmp_path: Path, size: tuple[int, int]
) -> None:
    """Trunk and the part of the neck that is used, then "no memory", on squares and rectangles."""
    theirs = official_of(tiny, tmp_path / "official.pt")
    canvas = torch.randn(2, 1, *size)
    with torch.no_grad():
        features = theirs.forward_image(canvas.expand(-1, 3, -1, -1))  # type: ignore[operator]
        _, found, _, _ = theirs._prepare_backbone_features(features)  # type: ignore[operator]
        expected = (found[-1] + theirs.no_mem_embed).permute(1, 2, 0)
        embedding = tiny.encode(canvas)
    assert embedding.shape == (2, 256, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(embedding.flatten(2), expected, atol=1e-5, rtol=1e-5)


def test_masks_are_the_packages_without_high_resolution_maps(
    tiny: FoundationModel, tmp_path: Path
) -> None:
    theirs = official_of(tiny, tmp_path / "official.pt")
    semantic = SemanticDecoder(tiny.mask_decoder, 4, "pretrained").eval()
    nothing = [torch.zeros(2, 32, 16, 24), torch.zeros(2, 64, 8, 12)]
    with torch.no_grad():
        semantic.mask_tokens.weight.copy_(tiny.mask_decoder.mask_tokens.weight)
        embedding = tiny.encode(torch.randn(2, 1, 64, 96))
        places, no_mask = tiny.context_of(embedding)
        expected = theirs.sam_mask_decoder.predict_masks(
            embedding, places, embedding.new_zeros(2, 0, 256), no_mask.view(1, -1, 1, 1),
            repeat_image=False, high_res_features=nothing,
        )[0]  # fmt: skip
        masks = semantic(embedding, places, no_mask)
    torch.testing.assert_close(masks, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (352, 288)])
def test_any_canvas_and_each_of_a_batch_by_itself(sam2: None, size: tuple[int, int]) -> None:
    model = SemanticSAM(FOUNDATION[TINY].build().eval(), channels=5)
    canvases = torch.randn(2, 1, *size)
    with torch.no_grad():
        together = model(canvases)
        alone = torch.cat([model(canvas[None]) for canvas in canvases])
    assert together.shape == (2, 5, *size)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_checkpointing_changes_no_gradient(sam2: None) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = FOUNDATION[TINY].build().eval()
        model.enable_gradient_checkpointing(checkpointing)
        model.encode(torch.linspace(-1, 1, 64 * 64).view(1, 1, 64, 64)).square().mean().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    kept, again = gradients(False), gradients(True)
    assert len(kept) == len(again) > 10
    for a, b in zip(kept, again, strict=True):
        torch.testing.assert_close(a, b)


def test_medsam2_sees_normalized_photographs(tiny: FoundationModel) -> None:
    """SAM 2 takes the gray values as they are, MedSAM-2 first brings them to 0..1."""
    canvas = torch.randn(1, 1, 64, 64)
    unit = (canvas - canvas.min()) / (canvas.max() - canvas.min())
    channels = [(unit - m) / s for m, s in zip(MEAN, SPREAD, strict=True)]
    seen: list[Tensor] = []
    tiny.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        tiny.encode(canvas)
        tiny.unit_range = True  # type: ignore[assignment]
        tiny.encode(canvas)
    assert torch.equal(seen[0], canvas.expand(-1, 3, -1, -1))
    torch.testing.assert_close(seen[1], torch.cat(channels, 1))


def test_lora_is_exact_at_the_start(tiny: FoundationModel) -> None:
    """Also where the attention widens: its qkv goes from C to 3·2C channels."""
    canvas = torch.randn(1, 1, 64, 96)
    blocks = tiny.attention_blocks()
    widths = [(b.attn.qkv.in_features, b.attn.proj.out_features) for b in blocks]
    assert widths == [(16, 16), (16, 32), (32, 64), (64, 64), (64, 128)]
    with torch.no_grad():
        before = tiny.encode(canvas)
        add_lora(tiny, rank=2)
        torch.testing.assert_close(tiny.encode(canvas), before, atol=1e-5, rtol=1e-4)
        assert count_trainable(tiny.image_encoder) == sum(2 * 2 * (a + b) for a, b in widths)
        for parameter in tiny.image_encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
        changed = tiny.encode(canvas)
        assert not torch.allclose(changed, before, atol=1e-3)


def test_lora_and_ect_count_on_the_real_size(sam2: None) -> None:
    model = FOUNDATION["sam2_hiera_t"].build()
    ect = build("ect", foundation=model, classes=2)
    # As with SAM's decoder: 0.78 M, published are 0.94 M.
    assert count_trainable(ect) == 781_856
    add_lora(model)
    assert count_trainable(model.image_encoder) == 69_888


def test_houlsby_starts_as_the_identity(tiny: FoundationModel) -> None:
    canvas = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = tiny.encode(canvas)
        add_adapters(tiny, 4)
        torch.testing.assert_close(tiny.encode(canvas), before)


def build(
    name: str, foundation: FoundationModel | None = None, classes: int = 3, **options: object
) -> FinetuningStrategy:
    torch.manual_seed(5)
    entry = STRATEGIES[name]
    own = options if name == "box" else {"upscale": 1, **options}
    return entry(
        foundation or FOUNDATION[TINY].build(),
        classes,
        StitchingSettings(max_pixels=1 << 14),
        entry.Options(**own),
    )


def ball(labeled: bool = True) -> Sample:
    """Two nested balls in noise."""
    shape = (22, 18, 7)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    labels = (radius < 0.8).to(torch.uint8) + (radius < 0.4).to(torch.uint8)
    image = labels.float() + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    image = (image - image.mean()) / image.std()
    return Sample("ball" if labeled else "other", image, labels if labeled else None)


STRATEGY_OPTIONS: dict[str, dict[str, object]] = {
    "lora": {},
    "cpac": {"view": "slices", "slices": 2, "start": 0.0, "max_points": 16},
    "ect": {"window": 3, "rank": 4},
}


@pytest.mark.parametrize("name", STRATEGY_OPTIONS)
def test_strategies_learn_and_predict(sam2: None, name: str) -> None:
    strategy = build(name, **STRATEGY_OPTIONS[name]).train()
    optimizer = torch.optim.AdamW([p for p in strategy.parameters() if p.requires_grad], 5e-3)
    losses = []
    for i in range(10):
        torch.manual_seed(7)
        unlabeled = [ball(labeled=False)] if strategy.uses_unlabeled else []
        terms = strategy.step([ball()], unlabeled, Progress(i, 10))
        assert strategy.uses_unlabeled == ("cross" in terms)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(float(terms["supervised"].detach()))
    assert losses[-1] < 0.9 * losses[0]
    with torch.no_grad():
        prediction = strategy.eval().predict(ball().image, PseudoLabelSettings())
    assert prediction.probabilities.shape == (3, 22, 18, 7)
    assert prediction.probabilities.isfinite().all()
    total = prediction.probabilities.float().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=2e-3, rtol=0)


def test_a_box_is_prompted_as_sam_2_was_pretrained(tiny: FoundationModel) -> None:
    """Two corners, then "not a point"; SAM has the corners alone."""
    strategies = [build("box", tiny), build("box", FOUNDATION["lite_tiny_random"].build())]
    corners = torch.tensor([[4.0, 4, 20, 30], [0, 0, 8, 8]])
    ours, theirs = (s._corner_tokens(corners, (64, 64)) for s in strategies)  # type: ignore[operator]
    assert theirs.shape == (2, 2, 256) and ours.shape == (2, 3, 256)
    nothing = tiny.prompt_encoder.not_a_point_embed.weight  # type: ignore[union-attr]
    torch.testing.assert_close(ours[:, 2], nothing.expand(2, -1))


def test_official_file_loads_whole(sam2: None, tmp_path: Path) -> None:
    """Written by the package's own SAM 2.1 tiny, read by us: no tensor missing, none left over."""
    pytest.importorskip("hydra")
    build_sam2 = import_sam2("build_sam").build_sam2
    theirs = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": theirs.state_dict()}, path)
    model = load_model(FoundationSettings(name="medsam2", weights=str(path)))
    assert model.prompt_encoder.input_image_size == (512, 512)
    model = load_model(FoundationSettings(name="sam2_hiera_t", weights=str(path)))
    canvas = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        features = theirs.forward_image(canvas.expand(-1, 3, -1, -1))["backbone_fpn"][-1]
        expected = features + theirs.no_mem_embed.view(1, -1, 1, 1)
        assert torch.equal(model.encode(canvas), expected)
    again = from_official(model.state_dict())
    assert again.keys() == model.state_dict().keys()  # our own names stay as they are


def test_file_with_code_or_of_another_model_is_refused(sam2: None, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    path = tmp_path / "code.pt"
    torch.save({"model": {"x": Code()}}, path, pickle_module=pickle)
    with pytest.raises(InputError, match="Python code"):
        load_model(FoundationSettings(name="medsam2", weights=str(path)))
    torch.save(FOUNDATION["lite_tiny_random"].build().state_dict(), path)
    with pytest.raises(InputError, match="does not hold the weights of 'medsam2'"):
        load_model(FoundationSettings(name="medsam2", weights=str(path)))


def test_medsam2_without_a_path_says_so(sam2: None) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched; set foundation\.weights"):
        load_model(FoundationSettings(name="medsam2"))


def test_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before any weights are fetched."""
    for name in [n for n in sys.modules if n.split(".")[0] == "sam2"]:
        monkeypatch.delitem(sys.modules, name)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        package_import.importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "sam2" else real(name, package),
    )
    monkeypatch.setitem(sys.modules, "sam2", None)  # type: ignore[arg-type]
    with pytest.raises(InputError) as found:
        load_model(FoundationSettings(name="sam2_hiera_l"))
    assert 'pip install "samsemiseg[sam2]"' in str(found.value)
    assert "\n" not in str(found.value)


def test_networks_import_without_what_else_a_package_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package whose ``__init__`` fails still gives its networks; a network whose own import
    fails is named, and the package is left as it was."""
    folder = tmp_path / "half_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("import not_there_at_all\n")
    (folder / "networks.py").write_text("SIZE = 3\n")
    (folder / "more.py").write_text("import neither_is_this\n")
    (folder / "other.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"neither_is_this.*run: pip install half"):
        package_import.import_networks("half_package", "more", "pip install half")
    with pytest.raises(InputError, match=r"nms does not exist.*run: pip install half"):
        package_import.import_networks("half_package", "other", "pip install half")
    assert "half_package" not in sys.modules
    module = package_import.import_networks("half_package", "networks", "pip install half")
    assert module.SIZE == 3
    for name in ("half_package", "half_package.networks"):
        monkeypatch.delitem(sys.modules, name)
    assert import_segment_anything().MaskDecoder
