"""TinyViT, the image encoder of LiteMedSAM.

Source: Wu et al., TinyViT: Fast Pretraining Distillation for Small Vision Transformers, ECCV 2022;
with the neck of Kirillov et al., Segment Anything, ICCV 2023. Module names are those of the
published weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.foundation.blocks import PROMPT_CHANNELS, run_block
from SAMSemiSegLib.foundation.segment_anything_import import import_segment_anything


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        if self.bn.training:
            result: Tensor = self.bn(self.c(x))
            return result
        # With fixed statistics the norm is folded into the convolution: one pass less over maps
        # that at full resolution are the encoder's main cost.
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None and variance is not None
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        conv = self.c
        return F.conv2d(
            x,
            conv.weight * scale.view(-1, 1, 1, 1),
            self.bn.bias - mean * scale,
            conv.stride,
            conv.padding,
            groups=conv.groups,
        )


class PatchEmbed(nn.Module):
    """The stem: two pointwise convolutions at the input's resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, channels // 2), nn.GELU(), ConvNorm(channels // 2, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H, W)."""
        result: Tensor = self.seq(x)
        return result


class MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise, project, add, activate."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels * expansion
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        return F.gelu(self.conv3(y) + x)


class PatchMerging(nn.Module):
    """From one stage to the next: other channels, half the side (``stride`` 2) or the same."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/stride, W/stride)."""
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        result: Tensor = self.conv3(y)
        return result


class WindowAttention(nn.Module):
    """Self-attention in non-overlapping windows with a learned bias for each distance.

    The map is padded with zeros at the bottom and right to whole windows, before the norm, and the
    padding takes part in the attention: so were the published weights trained.
    """

    offsets: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.window = window
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("offsets", _offset_indices(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        batch, height, width, channels = x.shape
        window = self.window
        bottom, right = -height % window, -width % window
        if bottom or right:
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        rows, columns = x.shape[1] // window, x.shape[2] // window
        x = x.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
        x = self._attend(x.reshape(-1, window * window, channels))
        x = x.reshape(batch, rows, columns, window, window, channels).transpose(2, 3)
        x = x.reshape(batch, rows * window, columns * window, channels)
        return x[:, :height, :width]

    def _attend(self, x: Tensor) -> Tensor:
        windows, tokens, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.num_heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.offsets].to(q.dtype)
        if torch.is_grad_enabled() and x.device.type == "cpu":
            # On processors the fused kernel's backward pass is several times slower than this for
            # windows of a few dozen tokens.
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
            x = scores.softmax(-1).to(v.dtype) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))
        result: Tensor = self.proj(x.transpose(1, 2).reshape(windows, tokens, channels))
        return result


def _offset_indices(window: int) -> Tensor:
    """(window², window²) index of the distance |Δrow|·window + |Δcolumn| between two tokens."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    return (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()


class Mlp(nn.Module):
    """Norm, widen, GELU, narrow."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, channels * expansion)
        self.fc2 = nn.Linear(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        result: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return result


class TinyViTBlock(nn.Module):
    """Attention, a local depthwise convolution, and an MLP; the first and last are residual."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y = x.permute(0, 2, 3, 1)
        y = y + self.attn(y)
        y = self.local_conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = y + self.mlp(y)
        return y.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one resolution, then the way to the next stage (None after the last)."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class TinyViT(nn.Module):
    """The encoder; the first stage is convolutional, the others attend in windows.

    Args:
        channels: of the four stages.
        depths: blocks of each stage.
        heads: of each stage (the first is not used).
        windows: side of the attention windows of each stage (the first is not used).
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
    ) -> None:
        super().__init__()
        self.checkpointing = False
        self.patch_embed = PatchEmbed(channels[0])
        self.layers = nn.ModuleList()
        last = len(channels) - 1
        for i, width in enumerate(channels):
            blocks: list[nn.Module]
            if i == 0:
                blocks = [MBConv(width) for _ in range(depths[i])]
            else:
                blocks = [TinyViTBlock(width, heads[i], windows[i]) for _ in range(depths[i])]
            # The merge before the last stage keeps the resolution: the embedding is a quarter of
            # the input's side.
            stride = 1 if i == last - 1 else 2
            downsample = PatchMerging(width, channels[i + 1], stride) if i < last else None
            self.layers.append(Stage(blocks, downsample))
        norm = import_segment_anything("modeling.common").LayerNorm2d
        self.neck = nn.Sequential(
            nn.Conv2d(channels[-1], PROMPT_CHANNELS, 1, bias=False),
            norm(PROMPT_CHANNELS),
            nn.Conv2d(PROMPT_CHANNELS, PROMPT_CHANNELS, 3, padding=1, bias=False),
            norm(PROMPT_CHANNELS),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 4, to (B, 256, H/4, W/4)."""
        x = self.patch_embed(x)
        for stage in self.layers:
            assert isinstance(stage, Stage)
            for block in stage.blocks:
                x = run_block(block, x, self.checkpointing)
            if stage.downsample is not None:
                x = stage.downsample(x)
        result: Tensor = self.neck(x)
        return result
