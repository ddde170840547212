"""TinyViT-5M as SAM's image encoder, small enough for CPUs: MobileSAM's.

Convolutions down to a quarter of the image, then three stages of attention within windows, down to
a sixteenth; its last stage keeps the grid, so that SAM's decoder finds cells of 16 pixels. It was
distilled from SAM's ViT-H, whose decoder goes on as it is.

Wu et al.: TinyViT, ECCV 2022; Zhang et al.: Faster Segment Anything (MobileSAM), 2023. Norms are
folded into the convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

PATCH = 16  # pixels along a cell of the output
WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
WINDOWS = (7, 14, 7)  # cells along a window of the stages with attention
HEAD = 32  # numbers of a head
CHANNELS = 256  # of the output, as SAM's decoder takes them
_STRIDES = (2, 2, 1)  # between stages
_RATIO = 4  # inner width of blocks


def _depthwise(width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, stride, 1, groups=width)


class _Inverted(nn.Module):
    """A 3x3 convolution of each channel between two of single pixels, wider inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, _RATIO * width, 1)
        self.conv2 = _depthwise(_RATIO * width)
        self.conv3 = nn.Conv2d(_RATIO * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(inner))


class _Merging(nn.Module):
    """From one stage to the next."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 1)
        self.conv2 = _depthwise(outer, stride)
        self.conv3 = nn.Conv2d(outer, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return result


class _Attention(nn.Module):
    """Among the cells of a window; how far apart two are, along each side, has a bias a head."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(self.heads, window * window))
        self.places: torch.Tensor
        self.register_buffer("places", apart(window), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) to the same; N cells of a window, row by row."""
        b, n, d = x.shape
        # Of each head its queries, keys and values follow one another.
        parts = self.qkv(self.norm(x)).view(b, n, self.heads, 3, HEAD).transpose(1, 2)
        query, key, value = parts.unbind(3)
        bias = self.attention_biases[:, self.places].to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        result: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n, d))
        return result


def apart(window: int) -> torch.Tensor:
    """(N, N) int64 place in the table of biases of each two of a window's N cells.

    The table has a bias for every distance (rows, columns), row by row.
    """
    cells = torch.arange(window)
    far = (cells[:, None] - cells).abs()
    places = window * far[:, None, :, None] + far[None, :, None, :]
    return places.reshape(window * window, window * window)


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, _RATIO * width)
        self.fc2 = nn.Linear(_RATIO * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return result


class _Block(nn.Module):
    """Attention within windows, a 3x3 convolution of each channel across them, an MLP."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _Attention(width, window)
        self.local_conv = _depthwise(width)
        self.mlp = _Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, H, W) to the same; H and W need not be multiples of the window."""
        b, d, h, w = x.shape
        side = self.window
        # Zeros, which the attention's norm sees, too: as it was trained.
        padded = F.pad(x, (0, -w % side, 0, -h % side))
        rows, columns = padded.shape[2] // side, padded.shape[3] // side
        windows = padded.view(b, d, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
        mixed = self.attn(windows.reshape(-1, side * side, d))
        mixed = mixed.view(b, rows, columns, side, side, d).permute(0, 5, 1, 3, 2, 4)
        x = self.local_conv(x + mixed.reshape(padded.shape)[..., :h, :w])
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _ChannelNorm(nn.LayerNorm):
    """Of the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Neck(nn.Module):
    """From the encoder's width to the decoder's."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 1, bias=False)
        self.layer_norm1 = _ChannelNorm(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.layer_norm2 = _ChannelNorm(outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer_norm1(self.conv1(x))
        result: torch.Tensor = self.layer_norm2(self.conv2(x))
        return result


class TinyViT(nn.Module):
    """The encoder.

    Nothing in it depends on the image's size, which may be any multiple of `PATCH`.

    Args:
        image_size: side of SAM's square input in pixels, for who asks.
    """

    def __init__(self, image_size: int = 1024) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_embed = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0] // 2, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(WIDTHS[0] // 2, WIDTHS[0], 3, 2, 1),
        )
        self.layers = nn.ModuleList()
        for k, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks: list[nn.Module] = [
                _Block(width, WINDOWS[k - 1]) if k else _Inverted(width) for _ in range(depth)
            ]
            last = k == len(WIDTHS) - 1
            merging = None if last else _Merging(width, WIDTHS[k + 1], _STRIDES[k])
            self.layers.append(_Stage(blocks, merging))
        self.neck = _Neck(WIDTHS[-1], CHANNELS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 256, H / 16, W / 16) embeddings of (B, 3, H, W) normalised images."""
        # Channels last: attention and convolutions then take turns without copies.
        x = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            x = layer(x)
        result: torch.Tensor = self.neck(x)
        return result
