"""TAP-Vid, any points in videos, with the factors of CRW's released code.

    jaxprop evaluate --config=tapvid_crw --config.dataset.root=tapvid_davis.pkl

Frames are 256 x 256 pixels, as TAP-Vid has them, and are enlarged twice for the network, so that
cells are 4 pixels large and not 8. A point is a symmetric spot, wide enough for its middle to be
found between cells: of JHMDB's unsymmetric stamps only whole cells come back.
"""

from ml_collections import ConfigDict

from . import davis_crw, jhmdb_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'tapvid_crw'
    config.title = "TAP-Vid, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'tapvid',
            'root': '',  # A file such as tapvid_davis.pkl, or a folder of several.
            'query_mode': 'first',  # Or 'strided'.
            'names': (),
        }
    )
    config.measure = ConfigDict({'seen_within': 32.0})
    config.input.upsample = 2.0
    del config.labels
    config.keypoints = jhmdb_crw.get_config().keypoints
    config.keypoints.update(encode_by='gaussian', sigma=0.75, num_cells=5)
    return config
