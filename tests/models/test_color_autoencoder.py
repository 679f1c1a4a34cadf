import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprop import color
from jaxprop.checkpoints.convnets import load_released
from jaxprop.data.image_files import read_image
from jaxprop.models.color_autoencoder import ColorAutoencoder
from tests.support import shared


@pytest.fixture(scope='module')
def released():
    return load_released(
        shared('weights', 'uvc_colour_encoder.pth'), shared('weights', 'uvc_colour_decoder.pth')
    )


def convolution(x, layer):
    """A 3x3 or 1x1 convolution of `[H, W, C]` in float64, padded by reflection."""
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ('kernel', 'bias'))
    border = kernel.shape[0] // 2
    x = np.pad(x, ((border, border), (border, border), (0, 0)), mode='reflect')
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    return np.tensordot(windows, kernel, axes=((3, 4, 2), (0, 1, 2))) + bias


def pool(x):
    return np.max([x[::2, ::2], x[1::2, ::2], x[::2, 1::2], x[1::2, 1::2]], axis=0)


def reference(params, x):
    """The feature map, and the reconstruction, of scaled Lab `[H, W, 3]`."""
    encoder, decoder = params['encoder'], params['decoder']
    x = convolution(x, encoder['conv1'])
    for name, pooled in (
        ('conv2', False),
        ('conv3', True),
        ('conv4', False),
        ('conv5', True),
        ('conv6', True),
        ('downsample', False),
    ):
        x = np.maximum(convolution(x, encoder[name]), 0)
        x = pool(x) if pooled else x
    features = x
    for name, doubled in (
        ('upsample', True),
        ('conv7', False),
        ('conv8', True),
        ('conv9', False),
        ('conv10', True),
    ):
        x = np.kron(x, np.ones((2, 2, 1))) if doubled else x
        x = np.maximum(convolution(x, decoder[name]), 0)
    return features, np.tanh(convolution(x, decoder['conv11']))


def test_against_numpy():
    model = ColorAutoencoder()
    generator = np.random.default_rng(0)
    lab = generator.uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), lab)
    # Larger than at first, and no bias 0, which would hide it.
    variables = jax.tree.map(
        lambda leaf: generator.normal(
            0, np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) == 4 else 0.1, leaf.shape
        ).astype(np.float32),
        shapes,
    )

    @jax.jit
    def both(variables, lab):
        features = model.apply(variables, lab, method='encode')
        return features, model.apply(variables, lab)

    features, result = both(variables, lab)
    assert features.shape == (2, 2, 3, 256)
    for i in range(2):
        expected_features, expected = reference(variables['params'], np.asarray(lab[i], np.float64))
        np.testing.assert_allclose(features[i], expected_features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(result[i], expected, atol=1e-4)


def test_released_weights_reconstruct_davis(released):
    frames = shared('data', 'DAVIS', 'JPEGImages', '480p')
    apply = jax.jit(ColorAutoencoder().apply)
    errors = []
    for name in ('blackswan', 'breakdance', 'libby'):
        image = jnp.asarray(read_image(sorted((frames / name).iterdir())[0]))[112:368, 300:556]
        lab = color.rgb_to_lab8(image)
        result = color.unscale_lab(apply(released, color.scale_lab(lab[None])))[0]
        errors.append(np.abs(result - lab).mean(axis=(0, 1)))
    # In 8-bit levels: the stride-8 map loses fine texture of the lightness, hardly any colour.
    lightness, a, b = np.mean(errors, axis=0)
    assert lightness < 14
    assert a < 1.5 and b < 1.5


def test_files_of_another_network(tmp_path):
    encoder, decoder = (
        shared('weights', f'uvc_colour_{name}.pth') for name in ('encoder', 'decoder')
    )
    with pytest.raises(ValueError, match="lacks 'conv1', which the encoder needs"):
        load_released(decoder, encoder)
    (tmp_path / 'text').write_text('no weights')
    with pytest.raises(ValueError, match='not a file of PyTorch weights'):
        load_released(encoder, tmp_path / 'text')
