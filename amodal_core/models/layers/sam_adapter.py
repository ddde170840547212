"""What is added to SAM's image encoder so that it learns a new task while its weights rest.

`PromptGenerator`: Chen et al.: SAM-Adapter, ICCV-W 2023. `BlockAdapter`: Wu et al.: Medical SAM
Adapter, 2023. Both as S-AModal uses them (Breitenstein et al., ECCV-W 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.frame import Frame
from amodal_core.models.layers.batch import bytes_of, make_batch
from amodal_core.models.layers.resizing import Resizing, resized_bytes
from amodal_core.models.layers.tiny_vit import TinyViT

RATE = 0.25  # share of the spectrum's area that the high-pass takes out
_SHARE = 32  # tokens are this many times wider than prompts
_RATIO, _SCALE = 0.25, 0.5  # of a block's adapters: inner width, weight beside the MLP


def high_pass(images: torch.Tensor, rate: float = RATE) -> torch.Tensor:
    """(B, C, H, W) float32: absolute values of images without their low frequencies.

    A square in the middle of the spectrum, floor(sqrt(rate H W) / 2) to each side, is zeroed.
    """
    height, width = images.shape[-2:]
    half = int((rate * height * width) ** 0.5 / 2)
    spectrum = torch.fft.fftshift(torch.fft.fft2(images.float()), dim=(-2, -1))
    rows = slice(max(height // 2 - half, 0), height // 2 + half)
    columns = slice(max(width // 2 - half, 0), width // 2 + half)
    kept = torch.ones((height, width), device=images.device)
    kept[rows, columns] = 0
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * kept, dim=(-2, -1))).real.abs()


class PromptGenerator(nn.Module):
    """Prompts that are added to the tokens before each block, from edges and from the patches.

    Args:
        width: of the tokens.
        depth: blocks.
        patch: side of a patch in pixels.
        published: tokens come in the order of S-AModal's code, which lays (h, w, D) out as
            (D, h w) without exchanging axes: what its training left needs it.
    """

    def __init__(self, width: int, depth: int, patch: int, published: bool = False) -> None:
        super().__init__()
        self.published = published
        narrow = width // _SHARE
        self.edges = nn.Conv2d(3, narrow, patch, patch)
        self.tokens = nn.Linear(width, narrow)
        self.own = nn.ModuleList(
            nn.Sequential(nn.Linear(narrow, narrow), nn.GELU()) for _ in range(depth)
        )
        self.shared = nn.Linear(narrow, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=(2 / (narrow * patch * patch)) ** 0.5)
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
        """What to add before each block, (B, h, w, D) each.

        Args:
            images: (B, 3, H, W) as the encoder gets them.
            tokens: (B, h, w, D) of the patches, without places.
        """
        if self.published:
            b, h, w, d = tokens.shape
            tokens = tokens.reshape(b, d, h * w).transpose(1, 2).reshape(b, h, w, d)
        features = self.edges(high_pass(images)).permute(0, 2, 3, 1) + self.tokens(tokens)
        return [self.shared(own(features)) for own in self.own]


class BlockAdapter(nn.Module):
    """A bottleneck after a block's attention, and one beside its MLP.

    Args:
        width: of the tokens.
        mid_dim: four times the bottlenecks' width; 0 for the tokens' width.
    """

    def __init__(self, width: int, mid_dim: int = 0) -> None:
        super().__init__()
        inner = int((mid_dim or width) * _RATIO)
        self.space = _bottleneck(width, inner)
        self.mlp = _bottleneck(width, inner)


def _bottleneck(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


def encode(
    encoder: Any,
    images: torch.Tensor,
    generator: PromptGenerator | None = None,
    adapters: nn.ModuleList | None = None,
) -> torch.Tensor:
    """(B, C, h, w) embeddings of images.

    Args:
        encoder: `transformers.SamModel.vision_encoder`, or a `TinyViT`, which nothing is added to.
        images: (B, 3, S, S) normalised; S is the encoder's own. A `TinyViT` takes any height and
            width that its cells divide.
        generator: of prompts, or None.
        adapters: a `BlockAdapter` for each block, or None.
    """
    if isinstance(encoder, TinyViT):
        embeddings: torch.Tensor = encoder(images)
        return embeddings
    tokens = encoder.patch_embed(images)
    prompts = generator(images, tokens) if generator is not None else None
    tokens = tokens + encoder.pos_embed
    for k, block in enumerate(encoder.layers):
        if prompts is not None:
            tokens = tokens + prompts[k]
        tokens = block(tokens) if adapters is None else _adapted(block, adapters[k], tokens)
    result: torch.Tensor = encoder.neck(tokens)
    return result


def _adapted(block: Any, adapter: Any, tokens: torch.Tensor) -> torch.Tensor:
    """A block of SAM's encoder with its adapter."""
    x = block.layer_norm1(tokens)
    if block.window_size:
        windows, padded = block.window_partition(x, block.window_size)
        x, _ = block.attn(windows)
        x = block.window_unpartition(x, block.window_size, padded, tokens.shape[1:3])
    else:
        x, _ = block.attn(x)
    tokens = tokens + x + adapter.space(x)
    x = block.layer_norm2(tokens)
    return tokens + block.mlp(x) + _SCALE * adapter.mlp(x)


def decoded(
    sam: Any, embedding: torch.Tensor, points: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What SAM draws for each prompt: the first of its masks.

    Args:
        sam: `transformers.SamModel`.
        embedding: (1, C, h, w) of the square, or of as many rows and columns of it as an image
            fills: what is left out has no say, and its logits are those at the border.
        points: (1, N, K, 2) float32 in the square.
        labels: (1, N, K) of them, as SAM has them.

    Returns:
        (N, 1, L, L) float32 logits of the square, and (N,) float32 expected IoU.
    """
    h, w = embedding.shape[-2:]
    sparse, dense = sam.prompt_encoder(points, labels, None, None)
    places = sam.get_image_wide_positional_embeddings()
    masks, scores = sam.mask_decoder(
        image_embeddings=embedding,
        image_positional_embeddings=places[..., :h, :w],
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense[..., :h, :w],
        multimask_output=False,
    )
    fine = masks.shape[-1] // w
    rest = (0, fine * (places.shape[-1] - w), 0, fine * (places.shape[-2] - h))
    return F.pad(masks[0].float(), rest, mode="replicate"), scores[0, :, 0].float()


def filled(sizes: Sequence[tuple[int, int]], side: int, cell: int) -> tuple[int, int]:
    """(height, width) of the part of square SAM inputs that images fill, in whole cells.

    Args:
        sizes: (height, width) of the images.
        side: of the square in pixels.
        cell: side of one in pixels.
    """
    height, width = np.max([inside(size, side) for size in sizes], 0)
    return -(-int(height) // cell) * cell, -(-int(width) // cell) * cell


def inside(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of an image of this size in a square SAM input, whose longer side it fills.

    Args:
        size: (height, width) of the image.
        side: of the square in pixels.
    """
    scale = side / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def resized(image: torch.Tensor, side: int, resize: Resizing = "torch") -> torch.Tensor:
    """A square SAM input, (3, side, side): zeros at the right or at the bottom of the image.

    Args:
        image: (3, H, W) as one of `Batch.images`.
        side: of the square in pixels.
        resize: how; bytes are what the image was made of, see `layers.resizing`.
    """
    size = inside((image.shape[1], image.shape[2]), side)
    if size == tuple(image.shape[1:]):
        pass
    elif resize == "torch":
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    else:
        pixels = resized_bytes(bytes_of(image), size, resize)
        (image,) = make_batch([Frame(0, image=pixels)], device=image.device).images
        image = image[:, : size[0], : size[1]]
    return F.pad(image, (0, side - size[1], 0, side - size[0]))


def in_image(
    low: torch.Tensor, size: tuple[int, int], side: int, resize: Resizing = "torch"
) -> torch.Tensor:
    """(N, H, W) logits at an image's size, of what SAM draws of its square.

    Args:
        low: (N, 1, L, L) float32 logits of the square.
        size: (height, width) of the image.
        side: of the square in pixels.
        resize: "torch" looks pixels up at once; else by way of the square's pixels, as published.
    """
    within = inside(size, side)
    if resize != "torch":
        square = F.interpolate(low, (side, side), mode="bilinear")[..., : within[0], : within[1]]
        return F.interpolate(square, size, mode="bilinear")[:, 0]
    v = (torch.arange(size[0], device=low.device) + 0.5) * (within[0] / size[0])
    u = (torch.arange(size[1], device=low.device) + 0.5) * (within[1] / size[1])
    grid = torch.stack([u.expand(size[0], -1), v[:, None].expand(-1, size[1])], dim=2)
    grid = (grid / side * 2 - 1).expand(len(low), -1, -1, -1)
    return F.grid_sample(low, grid, align_corners=False, padding_mode="border")[:, 0]


def in_square(
    points: torch.Tensor, size: tuple[int, int], side: int, resize: Resizing = "torch"
) -> torch.Tensor:
    """Points (..., 2) x, y of an image in SAM's square, which both count from pixels' centres.

    Args:
        points: float32 pixels of the image.
        size: (height, width) of the image.
        side: of the square in pixels.
        resize: "torch" moves the image's corner to the square's; else the first pixel's centre
            stays, as published.
    """
    within = inside(size, side)
    ratio = points.new_tensor([within[1] / size[1], within[0] / size[0]])
    return points * ratio if resize != "torch" else (points + 0.5) * ratio - 0.5
