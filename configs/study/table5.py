"""Table 5: UVC+. DAVIS 2017 val, per frame, k = 5, n = 7, no localization.

The first row is the released UVC, which ends in res4, with the factors of its code. The second row
is the study's own, which ends in res3. Networks of UVC+ have the names of their configs in
configs/train.
"""

from ..eval import davis_uvc
from . import common

PLUS = 'UVC+'
PLAIN, MORE = 'Kinetics', 'Kinetics+ImageNet'  # Data.
# Network, method, auxiliary loss, data, colour images, J&F, JM, JO, FM, FO.
ROWS = (
    ('uvc_released', 'UVC (Li et al.)', '-', PLAIN, '-', 57.8, 56.3, 65.0, 59.2, 64.1),
    ('uvc', "UVC (the study's)", '-', PLAIN, '-', 59.4, 57.9, 67.3, 60.9, 67.1),
    ('uvc_plus_rotation_gray', PLUS, 'Rotation', PLAIN, 'no', 61.6, 59.7, 69.6, 63.5, 72.4),
    ('uvc_plus_rotation', PLUS, 'Rotation', PLAIN, 'yes', 62.6, 60.6, 71.6, 64.6, 74.8),
    ('uvc_plus_rotation_imagenet', PLUS, 'Rotation', MORE, 'yes', 62.3, 60.3, 70.2, 64.3, 72.4),
    ('uvc_plus_moco', PLUS, 'MoCo', PLAIN, 'yes', 61.0, 58.8, 67.4, 63.2, 70.0),
    ('uvc_plus_moco_imagenet', PLUS, 'MoCo', MORE, 'yes', 60.8, 58.5, 67.2, 63.0, 69.7),
    ('uvc_plus_classification', PLUS, 'ImageNet', MORE, 'yes', 63.2, 61.0, 71.8, 65.3, 74.2),
)


def get_config():
    config = common.davis('table5', 'Table 5: UVC+ (DAVIS)')
    cells = []
    for network, method, loss, data, colour, *numbers in ROWS:
        name = method.split()[0]
        is_released = network == 'uvc_released'
        changes = (
            common.released(davis_uvc.get_config())
            if is_released
            else common.factors(name, 'per-frame')
        )
        cells.append(
            common.cell(
                {
                    'method': method,
                    'auxiliary loss': loss,
                    'data': data,
                    'colour images': colour,
                },
                network,
                changes,
                dict(zip(dict(common.DAVIS_MEASURES), numbers)),
                '' if is_released else common.DAVIS,
                '' if is_released else name,
            )
        )
    return common.add_study(
        config,
        cells,
        common.templates(cells, **{'auxiliary loss': '-', 'data': '-', 'colour images': '-'}),
        'UVC+',
        measures=common.DAVIS_MEASURES,
        columns=('method', 'auxiliary loss', 'data', 'colour images'),
    )
