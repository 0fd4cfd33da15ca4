"""Vision transformers of plain linear layers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.bounds import SIZE
from data.errors import UserError
from models.architecture import Architecture


@dataclass(frozen=True)
class ViT(Architecture):
    """A pre-norm transformer (Dosovitskiy et al. 2021) with a class token and learned positions.

    A token is a square of `patch` × `patch` pixels, with `dim` features; `patch` must divide the image
    size. `depth` counts the blocks and `heads` the attention heads of each, which must divide `dim`. A
    block's hidden layer has 4·`dim` features. One `nn.Linear` computes queries, keys and values: code
    that walks over the layers finds it, while torchvision's `MultiheadAttention` hides it. Weights may
    be torchvision's (ViT-B/16, ViT-L/16), which are the same function under other names, or Hugging
    Face's (google/vit-base-patch16-224), whose norms add 1e-12 where the paper's code adds 1e-6.
    """

    kind: ClassVar[str] = "models.vit.ViT"
    version: ClassVar[int] = 2  # version 1 had an epsilon of 1e-5 in its norms
    public_file: ClassVar[str] = (
        "model.safetensors of huggingface.co/google/vit-base-patch16-224 (or torchvision's vit_b_16 or "
        "vit_l_16)"
    )

    patch: Annotated[int, SIZE]
    dim: Annotated[int, SIZE]
    depth: Annotated[int, SIZE]
    heads: Annotated[int, SIZE]

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        if size % self.patch:
            raise UserError(
                f"model.patch={self.patch} does not divide the image size {size}: choose a divisor, or "
                "set model.input_size to a multiple"
            )
        if self.dim % self.heads:
            raise UserError(
                f"model.heads={self.heads} does not divide model.dim={self.dim}: choose a divisor"
            )
        return VisionTransformer(self, channels, size, classes)

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {_ours(name): value for name, value in weights.items() if not _PASSED.match(name)}
        return _joined(named)


# Parts of torchvision's and then of Hugging Face's parameter names, with the parts that replace them.
# torchvision's files call the hidden layers mlp.linear_1 and mlp.linear_2, its code mlp.0 and mlp.3.
_THEIRS = {
    "conv_proj.": "embed.",
    "encoder.pos_embedding": "positions.table",
    "encoder.layers.encoder_layer_": "blocks.",
    "ln_1.": "norm1.",
    "self_attention.in_proj_": "qkv.",
    "self_attention.out_proj.": "out.",
    "ln_2.": "norm2.",
    "mlp.linear_1.": "mlp.0.",
    "mlp.linear_2.": "mlp.2.",
    "mlp.3.": "mlp.2.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
    "embeddings.patch_embeddings.projection.": "embed.",
    "embeddings.position_embeddings": "positions.table",
    "embeddings.cls_token": "class_token.token",
    "encoder.layer.": "blocks.",
    "layernorm_before.": "norm1.",
    "attention.attention.": "",
    "attention.output.dense.": "out.",
    "layernorm_after.": "norm2.",
    "intermediate.dense.": "mlp.0.",
    "output.dense.": "mlp.2.",
    "classifier.": "head.",
    "layernorm.": "norm.",
}

# Parameters of Hugging Face's files that do not lie before the logits.
_PASSED = re.compile(r"(vit\.)?pooler\.")

# The three layers that Hugging Face has in the place of one.
_APART = re.compile(r"\.(query|key|value)\.")


def _ours(name: str) -> str:
    """Return this module's name of a parameter, given torchvision's, Hugging Face's or this module's."""
    if name == "class_token":
        return "class_token.token"
    name = name.removeprefix("vit.")
    for theirs, ours in _THEIRS.items():
        name = name.replace(theirs, ours)
    return name


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with queries, keys and values in one layer, where a file has them apart."""
    found = {name: value for name, value in weights.items() if not _APART.search(name)}
    for name in [name for name in weights if ".query." in name]:
        parts = [weights[name.replace("query", part)] for part in ("query", "key", "value")]
        found[name.replace("query", "qkv")] = torch.cat(parts)
    return found


# The epsilon of the paper's code and of the published weights; torch's default is 1e-5.
EPSILON = 1e-6


class VisionTransformer(nn.Module):
    """The module of a `ViT`: images (B, C, H, W) to logits (B, K), computed from the class token.

    z₀ = [x_class; x_p E] + E_pos, then the blocks, then y = head(LN(z[0])) (the paper's eqs. 1 and 4).
    """

    def __init__(self, shape: ViT, channels: int, size: int, classes: int) -> None:
        super().__init__()
        tokens = (size // shape.patch) ** 2
        self.embed = nn.Conv2d(channels, shape.dim, shape.patch, shape.patch)
        self.class_token = ClassToken(shape.dim)
        self.positions = Positions(tokens + 1, shape.dim)
        self.blocks = nn.Sequential(*(Block(shape.dim, shape.heads) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.dim, EPSILON)
        self.head = nn.Linear(shape.dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        # x_p E: (B, D, H/patch, W/patch) to (B, T, D) with T = (H/patch)·(W/patch)
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        # z₀ = [x_class; x_p E] + E_pos, (B, T + 1, D), then the blocks
        tokens = self.blocks(self.positions(self.class_token(tokens)))
        # y = head(LN(z[0])): the class token's output alone
        logits: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits


class ClassToken(nn.Module):
    """Prepend a learned token: (B, T, D) to (B, T + 1, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1)


class Positions(nn.Module):
    """Add a learned vector to the token of every position: (B, T, D) to (B, T, D)."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, tokens, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table


class Block(nn.Module):
    """One block: z' = z + attention(LN(z)) and z'' = z' + MLP(LN(z')) (the paper's eqs. 2 and 3)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, EPSILON)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, EPSILON)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attend(self.norm1(tokens))  # z' = z + attention(LN(z))
        tokens = tokens + self.mlp(self.norm2(tokens))  # z'' = z' + MLP(LN(z'))
        return tokens

    def attend(self, tokens: Tensor) -> Tensor:
        """Return multi-head self-attention, softmax(q·kᵀ/√(D/heads))·v in each head: (B, T, D)."""
        b, t, d = tokens.shape
        # (B, T, 3D) to three tensors (B, heads, T, D/heads)
        q, k, v = self.qkv(tokens).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        # softmax(q·kᵀ/√(D/heads))·v, (B, heads, T, D/heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        # the heads side by side again, (B, T, D)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return projected
