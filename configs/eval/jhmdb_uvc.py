"""JHMDB with the factors of UVC's released code (Li et al., NeurIPS 2019)."""

from . import davis_uvc, jhmdb_crw


def get_config():
    config = jhmdb_crw.get_config()
    config.name = 'jhmdb_uvc'
    config.title = "JHMDB, UVC's factors"
    config.network = davis_uvc.get_config().network
    config.input.color = 'lightness'
    config.propagation = davis_uvc.get_config().propagation
    config.propagation.update(
        num_neighbors=20,
        padding='repeat_first',
        feedback='min_max',
        as_released=('predicted_first',),
    )
    config.keypoints.num_cells = 5
    return config
