"""What importing the package loads."""

import subprocess
import sys


def test_import_loads_no_edge():
    heavy = (
        'cv2',
        'PIL',
        'av',
        'matplotlib',
        'safetensors',
        'scipy.io',
        'grain',
        'torch',
        'tensorflow',
        'tensorflow_datasets',
        'orbax.checkpoint',
        'jaxprop.data',
    )
    code = f'import sys, jaxprop; print([m for m in {heavy} if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = eval(done.stdout)
    # Flax itself may load orbax; nothing of ours may.
    assert [m for m in loaded if m != 'orbax.checkpoint'] == []


def test_public_functions_compose():
    import jax

    import jaxprop

    features = jax.random.normal(jax.random.key(0), (3, 5, 6, 4))
    ids = jax.random.randint(jax.random.key(1), (40, 48), 0, 3) * 7
    values = jaxprop.label_values(ids)
    config = jaxprop.PropagationConfig(num_context=2, num_neighbors=3, radius=3)
    soft = jaxprop.propagate_video(features, jaxprop.encode(ids, values, (5, 6)), config=config)
    decoded = jaxprop.decode(soft[-1], values, (40, 48))
    assert decoded.shape == (40, 48)
    assert set(decoded.reshape(-1).tolist()) <= {0, 7, 14}
