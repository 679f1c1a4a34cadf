"""JHMDB as VFS's released code draws, reads and scores joints (Xu and Wang, ICCV 2021).

VFS's factors of propagation for JHMDB are not released. Here they are those for DAVIS, with the
study's context of 4 frames (Table 8), and frames have the size of the other JHMDB configs. Frame 0
is scored, so do not compare the numbers with those of other configs.
"""

from . import davis_vfs, jhmdb_crw


def get_config():
    config = jhmdb_crw.get_config()
    config.name = 'jhmdb_vfs'
    config.title = "JHMDB, VFS's joints"
    config.network = davis_vfs.get_config().network
    config.propagation = davis_vfs.get_config().propagation
    config.propagation.num_context = 4
    config.input.precision = 'uint8'
    config.measure.count_first = True
    config.keypoints.update(encode_by='gaussian', sigma=4.0, num_cells=5, at='frame')
    return config
