"""Vision transformers: one module for DINO, DINOv2, DINOv3 and MAE's encoder.

Its attributes make it one or the other. Source: Dosovitskiy et al., "An Image is Worth 16x16
Words", ICLR 2021, in the arrangement of the releases: norms before attention and MLP, a class
token, a final norm.
"""

import re
from collections.abc import Callable
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxprop.models import positions
from jaxprop.models.resnet import check_images

PARTS = ('queries', 'keys', 'values')
# At most so many logits of attention are in memory at once: 128 MiB in float32.
MAX_LOGITS = 2**25
# Where heads are computed one after the other, the logits of so many queries are in memory at once.
CHUNK = 512
_small = nn.initializers.truncated_normal(0.02)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Computes softmax(q k' / sqrt(D)) v in each head, the softmax in float32.

    Many queries are computed in chunks, one after the other: memory then grows with the number of
    tokens, not with its square. On the CPU heads, too, are computed one after the other: a product
    of two matrices there is two to four times as fast as one product of all heads.

    Args:
      q: queries `[B, N, heads, D]`.
      k: keys, likewise.
      v: values, likewise.

    Returns:
      `[B, N, heads, D]`.
    """
    return jax.lax.platform_dependent(q, k, v, cpu=attention_by_head, default=attention_of_all)


def attention_of_all(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Computes attention in all heads at once. Arguments as in `attention`."""
    batch, tokens, heads, _ = q.shape
    chunk = max(1, MAX_LOGITS // (batch * heads * tokens))
    return _by_chunks(lambda queries: jax.nn.dot_product_attention(queries, k, v), q, chunk)


def attention_by_head(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Computes attention in one head after the other. Arguments as in `attention`."""
    batch, _, _, channels = q.shape

    def attend(head):
        queries, keys, values = head

        def weigh(queries):
            logits = jnp.matmul(queries, keys.T, preferred_element_type=jnp.float32)
            weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
            total = weights.sum(axis=-1, keepdims=True)
            mean = jnp.matmul(
                weights.astype(values.dtype), values, preferred_element_type=jnp.float32
            )
            return (mean / total).astype(values.dtype)

        return _by_chunks(lambda chunk: weigh(chunk[0])[None], queries[None], CHUNK)[0]

    q = q * channels**-0.5
    heads = (einops.rearrange(z, 'b n h d -> (b h) n d') for z in (q, k, v))
    y = jax.lax.map(attend, tuple(heads))
    return einops.rearrange(y, '(b h) n d -> b n h d', b=batch)


def _by_chunks(function: Callable[[jax.Array], jax.Array], q: jax.Array, chunk: int) -> jax.Array:
    """Applies a function to `chunk` of the queries `[B, N, ...]` at a time."""
    tokens = q.shape[1]
    if chunk >= tokens:
        return function(q)
    count = -(-tokens // chunk)
    padded = jnp.pad(q, ((0, 0), (0, count * chunk - tokens), *[(0, 0)] * (q.ndim - 2)))
    chunks = einops.rearrange(padded, 'b (count n) ... -> count b n ...', n=chunk)
    y = jax.lax.map(function, chunks)
    return einops.rearrange(y, 'count b n ... -> b (count n) ...')[:, :tokens]


class TransformerBlock(nn.Module):
    """Attention among all tokens, then an MLP on each: x + A(norm(x)), then x + M(norm(x)).

    Tokens are `[B, N, C]`, before and after. `angles [N, C / heads / 2]` rotate queries and keys,
    see `positions.rotate`. With `part`, one of `PARTS`, the block returns its queries, keys or
    values `[B, N, C]` instead, head after head, before any rotation. The attributes are those of
    `ViT`.
    """

    heads: int
    hidden: int
    mlp: str = 'gelu'
    biases: str = 'qkv'
    layer_scale: float | None = None
    epsilon: float = 1e-6
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: np.ndarray | None = None, part: str | None = None
    ) -> jax.Array:
        channels = x.shape[-1]

        def dense(name: str, features: int, bias: bool = True) -> Callable[..., jax.Array]:
            return nn.Dense(
                features, use_bias=bias, kernel_init=_small, dtype=self.dtype, name=name
            )

        def norm(name: str) -> Callable[..., jax.Array]:
            return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)

        def scaled(y: jax.Array, name: str) -> jax.Array:
            if self.layer_scale is None:
                return y
            return y * self.param(name, nn.initializers.constant(self.layer_scale), (channels,))

        y = norm('norm1')(x)
        q, k, v = (dense(n, channels, n[0] in self.biases)(y) for n in ('query', 'key', 'value'))
        if part is not None:
            return (q, k, v)[PARTS.index(part)]
        q, k, v = (z.reshape(*z.shape[:2], self.heads, -1) for z in (q, k, v))
        if angles is not None:
            q, k = positions.rotate(q, angles), positions.rotate(k, angles)
        y = attention(q, k, v).reshape(x.shape)
        x = x + scaled(dense('out', channels)(y), 'scale1')

        y = norm('norm2')(x)
        if self.mlp == 'swiglu':
            y = nn.silu(dense('gate', self.hidden)(y)) * dense('up', self.hidden)(y)
            y = dense('down', channels)(y)
        else:
            y = nn.gelu(dense('fc1', self.hidden)(y), approximate=False)
            y = dense('fc2', channels)(y)
        return x + scaled(y, 'scale2')


class ViT(nn.Module):
    """Turns images into a feature map: the patch tokens of a vision transformer.

    Called on `images` `[B, h, w, 3]`, floating point and already normalised, it gives features
    `[B, H, W, width]`, one for each whole patch of the image: H = floor(h / patch). Without `pad`
    the network does not see rows and columns beyond the last whole patch. `train` changes nothing:
    there is neither dropout nor a batch statistic.

    The defaults are DINO's ViT-S/16. The other releases differ from it:
    DINOv2: patch 14, grid 37, layer_scale; with registers, 4 of them, offset 0 and antialias.
    DINOv3: position 'rotary', registers 4, layer_scale, biases 'qv', epsilon 1e-5.
    MAE: offset 0. The largest DINOv2 and some DINOv3 have the MLP 'swiglu'.

    Attributes:
      patch: side of a patch in pixels.
      width: channels of a token.
      depth: number of blocks.
      heads: number of attention heads, of `width / heads` channels each.
      mlp: 'gelu': two layers around a GELU; 'swiglu': down(silu(gate(x)) * up(x)).
      hidden: channels inside the MLP; None: 4 * width.
      registers: number of tokens beside the class token that stand for no patch.
      position: 'learned' embeddings, added to the class token and the patches; or 'rotary' angles,
        by which the patches' queries and keys are rotated.
      grid: with 'learned', the number of rows and of columns of patches that have embeddings. They
        are interpolated for other grids, and for images that are not square.
      offset: with 'learned', the offset of that interpolation, see `positions.resize_matrix`.
      antialias: with 'learned', whether that interpolation is antialiased, see the same.
      periods: with 'rotary', the periods of the angles, `width / heads / 4` numbers; None: from 1
        to 100, see `positions.rotary_periods`.
      layer_scale: initial value of a learned factor for each channel of a block's additions; None:
        no such factor.
      biases: which of queries, keys and values have a bias: some of the letters of 'qkv'. DINOv3
        masks the bias of its keys, so its keys have none.
      epsilon: of the norms.
      output: None or 'last': patch tokens of the last block. 'blockN': of block N, the first is
        'block0'. 'blockN.queries', '.keys' or '.values': the queries, keys or values of the patch
        tokens in this block, head after head, before any rotation. 'cls': the class token
        `[B, width]`, which is no feature map. Layers after the output are not built.
      pad: whether images are filled with zeros, at the bottom and on the right, to whole patches:
        H = ceil(h / patch).
      norm: whether tokens (not queries, keys and values) pass the final norm.
      dtype: of computation and features; None: float32. Parameters, norms' statistics, the sums of
        attention's softmax and the sums over the blocks are float32.

    Raises:
      ValueError: an attribute has a value that is none of these, or images have another form or
        are smaller than a patch.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021;
    Oquab et al., "DINOv2", TMLR 2024; Darcet et al., "Vision Transformers Need Registers", ICLR
    2024; Simeoni et al., "DINOv3", 2025; He et al., "Masked Autoencoders Are Scalable Vision
    Learners", CVPR 2022.
    """

    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp: str = 'gelu'
    hidden: int | None = None
    registers: int = 0
    position: str = 'learned'
    grid: int = 14
    offset: float = 0.1
    antialias: bool = False
    periods: tuple[float, ...] | None = None
    layer_scale: float | None = None
    biases: str = 'qkv'
    epsilon: float = 1e-6
    output: str | None = None
    pad: bool = False
    norm: bool = True
    dtype: DTypeLike | None = None

    def __post_init__(self):
        if self.periods is not None:
            # A list, as JSON has it, would make the module unhashable.
            object.__setattr__(self, 'periods', tuple(self.periods))
        for name, known in {'mlp': ('gelu', 'swiglu'), 'position': ('learned', 'rotary')}.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is {getattr(self, name)!r}; known: {known}')
        for name, least in {'patch': 1, 'width': 1, 'depth': 1, 'heads': 1, 'registers': 0}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f'{name} is {value!r}; needed: an integer of at least {least}')
        if self.width % self.heads:
            raise ValueError(f'width is {self.width}; needed: a multiple of heads, {self.heads}')
        if self.biases not in ('qkv', 'qv', 'qk', 'kv', 'q', 'k', 'v', ''):
            raise ValueError(f"biases is {self.biases!r}; needed: some of the letters of 'qkv'")
        if self.position == 'rotary':
            needed, rest = divmod(self.width // self.heads, 4)
            if rest:
                raise ValueError(
                    f'width / heads is {self.width // self.heads}; rotary positions need a '
                    'multiple of 4'
                )
            if self.periods is not None and len(self.periods) != needed:
                raise ValueError(f'periods are {len(self.periods)}; needed: {needed} or None')
        self._last_block()
        super().__post_init__()

    def _last_block(self) -> tuple[int, str | None]:
        """The index of the block that gives the output, and which of its `PARTS` it is, if any."""
        if self.output in (None, 'last', 'cls'):
            return self.depth - 1, None
        match = re.fullmatch(rf'block(\d+)(?:\.({"|".join(PARTS)}))?', str(self.output))
        if not match or int(match[1]) >= self.depth:
            raise ValueError(
                f"output is {self.output!r}; known: None, 'last', 'cls', 'block0' to "
                f"'block{self.depth - 1}', and of a block its parts {PARTS}: 'block0.keys'"
            )
        return int(match[1]), match[2]

    @property
    def stride(self) -> int:
        """Pixels from one feature cell to the next."""
        return self.patch

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.width

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the features of images of `height` x `width` pixels, in cells."""
        if self.pad:
            return -(-height // self.patch), -(-width // self.patch)
        return height // self.patch, width // self.patch

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        check_images(images)
        # Cut or fill the images to whole patches.
        batch, height, width, _ = images.shape
        rows, columns = self.grid_size(height, width)
        if self.pad:
            below, right = rows * self.patch - height, columns * self.patch - width
            images = jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))
            height, width = images.shape[1:3]
        if not rows or not columns:
            raise ValueError(
                f'images are of {height} x {width} pixels; needed: at least a patch, {self.patch}'
            )
        prefix = 1 + self.registers
        last, part = self._last_block()

        # Turn patches into tokens [B, prefix + H W, C], after the class token and the registers.
        size = (self.patch, self.patch)
        x = nn.Conv(
            self.width, size, strides=size, padding='VALID', dtype=self.dtype, name='patch_embed'
        )(images)
        x = x.astype(jnp.float32).reshape(batch, rows * columns, self.width)
        first = self.param('cls_token', _small, (1, self.width))
        if self.position == 'learned':
            embeddings = self.param('positions', _small, (1 + self.grid**2, self.width))
            first = first + embeddings[:1]
            x = x + self._positions(embeddings[1:], height, width)
        if self.registers:
            registers = self.param('registers', _small, (self.registers, self.width))
            first = jnp.concatenate([first, registers])
        first = jnp.broadcast_to(first, (batch, prefix, self.width))
        x = jnp.concatenate([first, x], axis=1)

        # Apply the blocks, up to the output.
        angles = self._angles(rows, columns, prefix) if self.position == 'rotary' else None
        for index in range(last + 1):
            block = TransformerBlock(
                self.heads,
                self.hidden or 4 * self.width,
                self.mlp,
                self.biases,
                self.layer_scale,
                self.epsilon,
                self.dtype,
                name=f'block{index}',
            )
            x = block(x, angles, part if index == last else None)
        if self.norm and part is None:
            x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name='norm')(x)
        x = x.astype(self.dtype or jnp.float32)
        if self.output == 'cls':
            return x[:, 0]
        return x[:, prefix:].reshape(batch, rows, columns, self.width)

    def _positions(self, embeddings: jax.Array, height: int, width: int) -> Any:
        """Position embeddings `[H W, C]` of an image's patches, from the learned `[grid^2, C]`.

        As in the releases, only square images of the same grid take them without interpolation.
        """
        rows, columns = self.grid_size(height, width)
        if rows == columns == self.grid and height == width:
            return embeddings
        embeddings = embeddings.reshape(self.grid, self.grid, self.width)
        return positions.interpolate_positions(
            embeddings, rows, columns, self.offset, self.antialias
        ).reshape(rows * columns, self.width)

    def _angles(self, rows: int, columns: int, prefix: int) -> np.ndarray:
        """Angles of all tokens; they are 0 for tokens that stand for no patch."""
        periods = self.periods
        if periods is None:
            periods = positions.rotary_periods(self.width // self.heads // 4)
        angles = positions.rotary_angles(rows, columns, np.asarray(periods))
        return np.pad(angles, ((prefix, 0), (0, 0)))
