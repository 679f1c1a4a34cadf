"""YouTube-VOS with the factors of CRW's released code.

    jaxprop evaluate --config=youtube_vos_crw --config.dataset.root=YouTubeVOS/valid

The truth of the validation set is kept by its server: `submission.zip` is for that. Frames are
resized to a short side of 480 pixels, since some are larger.
"""

from ml_collections import ConfigDict

from . import davis_crw


def get_config():
    config = davis_crw.get_config()
    config.name = 'youtube_vos_crw'
    config.title = "YouTube-VOS, CRW's factors"
    config.dataset = ConfigDict(
        {
            'kind': 'youtube_vos',
            'root': '',
            'all_frames': '',  # The folder valid_all_frames, to see every frame.
            'names': (),
        }
    )
    config.measure = ConfigDict({'count_given': False, 'count_last': True})
    config.input.update(resize='short_side', size=480)
    return config
