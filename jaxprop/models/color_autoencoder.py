"""The autoencoder of Lab colours. UVC copies its feature map from frame to frame.

Source: Li et al., "Joint-task Self-supervised Learning for Temporal Correspondence", NeurIPS 2019.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

STRIDE = 8


def _conv(x: jax.Array, channels: int, kernel: int, name: str) -> jax.Array:
    height, width = x.shape[1:3]
    if kernel == 1:
        return nn.Conv(channels, (1, 1), name=name)(x)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    # Pad a needless row and column, which are cut off again: on CPU, XLA's convolution without any
    # padding is several times slower.
    x = nn.Conv(channels, (3, 3), padding=((0, 1), (0, 1)), name=name)(x)
    return x[:, :height, :width]


def _pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _upsample(x: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class ColorEncoder(nn.Module):
    """Encodes scaled Lab `[B, H, W, 3]` as features `[B, H // 8, W // 8, 256]`, after a ReLU."""

    @nn.compact
    def __call__(self, lab: jax.Array) -> jax.Array:
        x = _conv(lab, 3, 1, 'conv1')
        x = nn.relu(_conv(x, 64, 3, 'conv2'))
        x = nn.relu(_conv(x, 64, 3, 'conv3'))
        x = _pool(x)
        x = nn.relu(_conv(x, 128, 3, 'conv4'))
        x = nn.relu(_conv(x, 128, 3, 'conv5'))
        x = _pool(x)
        x = nn.relu(_conv(x, 256, 3, 'conv6'))
        return nn.relu(_conv(_pool(x), 256, 1, 'downsample'))


class ColorDecoder(nn.Module):
    """Decodes a feature map `[B, h, w, 256]` to scaled Lab `[B, 8 h, 8 w, 3]` in (-1, 1)."""

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        x = nn.relu(_conv(_upsample(features), 256, 1, 'upsample'))
        x = nn.relu(_conv(x, 128, 3, 'conv7'))
        x = _upsample(x)
        x = nn.relu(_conv(x, 128, 3, 'conv8'))
        x = nn.relu(_conv(x, 64, 3, 'conv9'))
        x = _upsample(x)
        x = nn.relu(_conv(x, 64, 3, 'conv10'))
        return nn.tanh(_conv(x, 3, 3, 'conv11'))


class ColorAutoencoder(nn.Module):
    """Encodes Lab colours as a feature map of stride 8, and decodes them again.

    Lab is scaled: (x - 128) / 128 of 8-bit values, `jaxprop.color.scale_lab`. Called on
    `[B, H, W, 3]` it gives `[B, 8 (H // 8), 8 (W // 8), 3]`. `apply(..., method='encode')` and
    `method='decode'` compute one half. H and W must be at least 8, since padding by reflection
    needs two cells.

    The network is like VGG: 3x3 convolutions padded by reflection, max pooling, and upsampling by
    nearest neighbour.

    Source: Li et al., NeurIPS 2019, as released.
    """

    def setup(self):
        self.encoder = ColorEncoder()
        self.decoder = ColorDecoder()

    def __call__(self, lab: jax.Array) -> jax.Array:
        return self.decode(self.encode(lab))

    def encode(self, lab: jax.Array) -> jax.Array:
        """Scaled Lab `[B, H, W, 3]` -> features `[B, H // 8, W // 8, 256]`."""
        return self.encoder(lab)

    def decode(self, features: jax.Array) -> jax.Array:
        """Features `[B, h, w, 256]` -> scaled Lab `[B, 8 h, 8 w, 3]`."""
        return self.decoder(features)
