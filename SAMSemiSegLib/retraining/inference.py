"""Prediction of a whole volume by a sliding window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from SAMSemiSegLib.training.sliding_window import SlidingWindowInferer


@torch.inference_mode()
def predict_probabilities(
    net: nn.Module,
    image: Tensor,
    patch: tuple[int, int, int],
    overlap: float = 0.5,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    scales: Sequence[float] = (1.0,),
) -> Tensor:
    """Softmax probabilities of one volume, averaged over overlapping windows.

    Windows are weighted by a Gaussian around their center. The sums are kept in main memory, so
    that the device holds a few windows and never the volume. With several ``scales`` the volume is
    looked at larger and smaller too (test-time augmentation), and the mean is returned.

    Args:
        net: (B, 1, X, Y, Z) to logits (B, K, X, Y, Z), already on ``device``.
        image: (X, Y, Z) preprocessed gray values, of any size; a volume smaller than the patch is
            padded with its minimum.
        patch: size of the window in voxels.
        overlap: of neighboring windows, as a share of their side.
        device: where the network runs.
        dtype: of mixed precision (bfloat16, float16), or None for float32.
        scales: resolutions to look at, as shares of the image's own.

    Returns:
        (K, X, Y, Z) float32 on the CPU.
    """
    device = torch.device(device)
    image = image.detach().to("cpu", torch.float32)

    def probabilities(window: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = net(window)
        return logits.float().softmax(1)

    inferer = SlidingWindowInferer(
        roi_size=patch,
        sw_batch_size=1,
        overlap=overlap,
        mode="gaussian",
        padding_mode="constant",
        cval=float(image.min()),
        sw_device=device,
        device="cpu",
    )
    training = net.training
    net.eval()
    total: Tensor | None = None
    try:
        for scale in scales:
            size = [max(1, round(scale * side)) for side in image.shape]
            found = inferer(_resized(image[None, None], size), probabilities)
            assert isinstance(found, Tensor)
            found = _resized(found, list(image.shape))[0]
            total = found if total is None else total.add_(found)
    finally:
        net.train(training)
    assert total is not None
    return total.div_(len(scales))


def _resized(volumes: Tensor, size: Sequence[int]) -> Tensor:
    """Volumes (B, C, X, Y, Z) on a grid of ``size`` voxels over the same space, by linear steps."""
    if list(volumes.shape[2:]) == list(size):
        return volumes
    return F.interpolate(volumes, list(size), mode="trilinear")
