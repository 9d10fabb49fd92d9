"""The V-Net, its heads, and prediction of whole volumes."""

import subprocess
import sys

import pytest
import torch

from SAMSemiSegLib.retraining.inference import predict_probabilities
from SAMSemiSegLib.retraining.vnet import Convolution, VNet
from SAMSemiSegLib.run.settings import NetSettings


def test_size_is_that_of_the_literature() -> None:
    assert sum(p.numel() for p in VNet(2).parameters()) == pytest.approx(9.45e6, rel=2e-3)


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_outputs(norm: str) -> None:
    net = VNet(3, NetSettings(width=2, norm=norm), {"deep", "distance"}).eval()
    image = torch.randn(1, 1, 32, 48, 32)
    output = net.forward_heads(image)
    assert torch.equal(output.logits, net(image))
    assert torch.equal(output.logits, net.head(output.embedding))
    assert [d.shape for d in output.deep] == [output.logits.shape] * 3
    assert output.distance is not None and output.distance.shape == (1, 2, 32, 48, 32)
    assert output.distance.abs().max() <= 1


def test_extra_heads_leave_no_trace_in_the_plain_net() -> None:
    net = VNet(2, NetSettings(width=2), {"deep", "distance"}).eval()
    plain = net.plain()
    assert set(plain.state_dict()) == set(VNet(2, NetSettings(width=2)).state_dict())
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(plain(image), net(image))


def test_with_instance_norm_a_copy_does_to_a_window_what_batch_norm_does_in_training() -> None:
    net = VNet(2, NetSettings(width=2, dropout=0), {"deep", "distance"})
    for _ in range(3):
        net(3 * torch.randn(2, 1, 32, 32, 32) + 1)
    window, averages = torch.randn(1, 1, 32, 48, 32), net.plain().eval()
    by_window = net.plain("instance").eval()
    assert by_window.settings == NetSettings(width=2, dropout=0, norm="instance")
    with torch.no_grad():
        assert torch.allclose(by_window(window), net(window), atol=1e-4)
        assert not torch.allclose(by_window(window), averages(window), atol=1e-2)


def test_scripts_and_traces() -> None:
    net = VNet(2, NetSettings(width=2), {"deep"}).eval()
    scripted = torch.jit.script(net)
    traced = torch.jit.trace(net, torch.randn(1, 1, 16, 16, 16))
    image = torch.randn(2, 1, 32, 16, 48)
    assert torch.allclose(scripted(image), net(image), atol=1e-6)
    assert torch.allclose(traced(image), net(image), atol=1e-6)


@pytest.mark.parametrize("size", [(2, 3, 2), (2, 2, 2), (3, 2, 2)])
def test_bf16_gradients_of_small_feature_maps(size: tuple[int, int, int]) -> None:
    """Some bf16 kernels read memory they have not written; so it is filled with NaN before."""
    torch.manual_seed(0)
    layer = Convolution(64, 64)
    image = torch.randn(2, 64, *size)
    expected = torch.autograd.grad(layer(image).sum(), layer.weight)[0]
    for _ in range(4):
        filled = [torch.full((n,), float("nan")) for n in (10_000, 100_000, 1_000_000, 4_000_000)]
        del filled
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(image)
        found = torch.autograd.grad(output.float().sum(), layer.weight)[0]
        assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("shape", [(9, 40, 33), (32, 32, 32)])
def test_prediction_of_any_size(shape: tuple[int, int, int]) -> None:
    net = VNet(3, NetSettings(width=2, norm="instance"))
    probabilities = predict_probabilities(net, torch.randn(shape), (32, 32, 32), 0.5)
    assert probabilities.shape == (3, *shape)
    assert torch.allclose(probabilities.sum(0), torch.ones(shape), atol=1e-4)
    assert net.training  # as it was before


def test_prediction_of_one_window_is_the_network() -> None:
    net = VNet(2, NetSettings(width=2)).eval()
    image = torch.randn(16, 16, 16)
    with torch.no_grad():
        expected = net(image[None, None])[0].softmax(0)
    assert torch.allclose(predict_probabilities(net, image, (16, 16, 16)), expected, atol=1e-5)


def test_several_scales_are_averaged_on_the_grid_of_the_image() -> None:
    """The mean of each alone; where the network looks at single voxels, a smooth volume gives the
    same at each scale."""
    image = torch.linspace(-1, 1, 40)[:, None, None].expand(40, 24, 21).contiguous()
    net = torch.nn.Conv3d(1, 2, 1)
    alone = {
        scale: predict_probabilities(net, image, (16, 16, 16), scales=(scale,))
        for scale in (0.75, 1.0, 1.25)
    }
    together = predict_probabilities(net, image, (16, 16, 16), scales=tuple(alone))
    assert together.shape == (2, *image.shape)
    assert torch.allclose(together, sum(alone.values()) / 3, atol=1e-6)
    assert torch.equal(alone[1.0], predict_probabilities(net, image, (16, 16, 16)))
    assert torch.allclose(together, alone[1.0], atol=0.01)
    assert not torch.equal(alone[0.75], alone[1.0])


def test_the_sliding_window_starts_without_packages_it_does_not_use() -> None:
    """MONAI imports transformers where peft has brought it along: two seconds of each start."""
    code = """
import sys
import SAMSemiSegLib.retraining.inference
assert "monai" in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
