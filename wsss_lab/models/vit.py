"""Vision transformers of timm behind the `Backbone` interface."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.models.base import Backbone, Features

PosEmbedMode = Literal["bicubic", "bilinear"]


def resize_pos_embed(
    pos_embed: Float[Tensor, "1 n d"],
    grid: tuple[int, int],
    old_grid: tuple[int, int],
    mode: PosEmbedMode = "bicubic",
) -> Float[Tensor, "1 m d"]:
    """Resize the patch part of a learned position embedding to another token grid.

    Neither of the two released codes that resize on the fly filters against aliasing: CoSA uses
    bicubic, ACR bilinear interpolation, both with ``align_corners=False``. timm filters by default,
    which gives other numbers when the grid shrinks.

    Args:
        pos_embed: position embedding, (1, p + old_gh * old_gw, d); the first p entries (class
            token) are kept as they are.
        grid: target (gh, gw).
        old_grid: (gh, gw) of the learned embedding.
        mode: interpolation.

    Returns:
        (1, p + gh * gw, d); the input itself when the grids are equal.

    Raises:
        ValueError: the embedding is shorter than `old_grid` needs.
    """
    if tuple(grid) == tuple(old_grid):
        return pos_embed
    prefix = pos_embed.shape[1] - old_grid[0] * old_grid[1]
    if prefix < 0:
        raise ValueError(
            f"pos_embed has {pos_embed.shape[1]} entries, fewer than its grid "
            f"{old_grid[0]}x{old_grid[1]} needs: pass the grid it was learned for as old_grid"
        )
    patches = pos_embed[:, prefix:].transpose(1, 2).unflatten(2, old_grid).float()
    patches = F.interpolate(patches, size=grid, mode=mode, align_corners=False)
    patches = patches.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return torch.cat([pos_embed[:, :prefix], patches], dim=1)


class ViTBackbone(Backbone):
    """timm `VisionTransformer`, plain or with a convolutional stem, for images of any size.

    Args:
        name: name of the backbone.
        net: timm `VisionTransformer` with a class token and a learned position embedding.
        stride: pixels per token.
        levels: blocks whose output is also returned as a map, before the last one; negative numbers
            count from the end (-1 is the last block). These maps are not normalised (CoSA's
            auxiliary classifier reads one: -3 in the logged runs, -4 in the released script).
        final_norm: apply the final LayerNorm to the last map, the tokens and the class token. ACR
            reads its tokens before that layer: `False`.
        pos_mode: interpolation of the position embedding, see `resize_pos_embed`.
        train_pos_embed: CoSA keeps the position embedding fixed: `False`.
        min_size: smallest accepted image side.

    Raises:
        ValueError: a level outside the network, or `net` without class token or position embedding.
    """

    prefix_tokens = 1

    def __init__(
        self,
        name: str,
        net: Any,
        stride: int,
        levels: tuple[int, ...] = (),
        final_norm: bool = True,
        pos_mode: PosEmbedMode = "bicubic",
        train_pos_embed: bool = True,
        min_size: int = 16,
    ) -> None:
        depth = len(net.blocks)
        bad = [level for level in levels if not -depth <= level < depth]
        if bad:
            raise ValueError(f"levels must lie in [-{depth}, {depth - 1}] for {name}, got {bad}")
        if net.cls_token is None or net.pos_embed is None or net.num_prefix_tokens != 1:
            raise ValueError(
                f"net of {name} needs one class token and a learned position embedding"
            )
        if pos_mode not in ("bicubic", "bilinear"):
            raise ValueError(f"pos_mode must be 'bicubic' or 'bilinear', got {pos_mode!r}")
        super().__init__(
            name, (net.embed_dim,) * (len(levels) + 1), (stride,) * (len(levels) + 1), min_size
        )
        self.net = net
        self.levels = tuple(level % depth for level in levels)
        self.final_norm = final_norm
        self.pos_mode: PosEmbedMode = pos_mode
        net.pos_embed.requires_grad_(train_pos_embed)
        if not final_norm:
            net.norm.requires_grad_(False)  # it stays in checkpoints but gets no gradient

    def embed(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b n d"], tuple[int, int]]:
        """Embed an image for the first block.

        Args:
            image: normalised image.

        Returns:
            Class token and patch tokens with positions added, (b, 1 + gh * gw, d), and (gh, gw).
        """
        stem = getattr(self.net.patch_embed, "backbone", None)
        return self.embed_map(image if stem is None else stem(image))

    def embed_map(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b n d"], tuple[int, int]]:
        """Embed what the patch projection takes: the stem's map, or the image where there is none.

        Args:
            x: output of the stem.

        Returns:
            See `embed`.
        """
        net = self.net
        patches = net.patch_embed.proj(x)
        b, _, gh, gw = patches.shape
        x = torch.cat([net.cls_token.expand(b, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        old_grid = tuple(net.patch_embed.grid_size)
        x = x + resize_pos_embed(net.pos_embed, (gh, gw), old_grid, self.pos_mode)
        return net.norm_pre(net.pos_drop(x)), (gh, gw)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run stem, blocks and final LayerNorm."""
        maps, x = self.run_blocks(*self.embed(image))
        return Features(pyramid=maps, tokens=x[:, 1:], cls=x[:, 0])

    def run_blocks(
        self, x: Float[Tensor, "b n d"], grid: tuple[int, int]
    ) -> tuple[list[Float[Tensor, "b d gh gw"]], Float[Tensor, "b n d"]]:
        """Run the blocks and the final LayerNorm on embedded tokens.

        Args:
            x: class token and patch tokens, from `embed`.
            grid: (gh, gw).

        Returns:
            Maps of the blocks in `levels`, then the last map; and the tokens of the last map with
            the class token before them.
        """
        outputs: list[Tensor] = []
        for block in self.net.blocks:
            x = block(x)
            outputs.append(x)
        if self.final_norm:
            x = self.net.norm(x)
        picked = [outputs[level] for level in self.levels] + [x]
        return [p[:, 1:].transpose(1, 2).unflatten(2, grid) for p in picked], x
