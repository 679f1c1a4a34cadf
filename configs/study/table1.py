"""Table 1: input resolution. DAVIS 2017 val, per frame, k = 5, n = 7."""

from . import common

# Model, resolution, JM, JO, FM, FO. UVC is the released network.
ROWS = (
    ('ImageNet', '320x320', 46.6, 48.9, 47.0, 48.3),
    ('ImageNet', '480x480', 48.6, 50.9, 54.2, 56.1),
    ('ImageNet', '480xfull', 51.3, 56.7, 56.6, 59.6),
    ('UVC', '320x320', 46.7, 49.0, 44.6, 42.1),
    ('UVC', '480x480', 52.5, 60.3, 54.3, 57.3),
    ('UVC', '480xfull', 56.3, 64.9, 59.2, 64.0),
)
RESOLUTIONS = {
    '320x320': {'input.resize': 'square', 'input.size': 320, 'input.multiple': 1},
    '480x480': {'input.resize': 'square', 'input.size': 480, 'input.multiple': 1},
    '480xfull': {'input.resize': 'short_side', 'input.size': 480, 'input.multiple': 64},
}
NETWORKS = {
    'ImageNet': ('imagenet', {}),
    'UVC': ('uvc', {'network.output': 'res4'}),
}


def get_config():
    config = common.davis('table1', 'Table 1: input resolution (DAVIS)')
    measures = common.DAVIS_MEASURES[1:]
    cells = []
    for method, resolution, *numbers in ROWS:
        network, changes = NETWORKS[method]
        cells.append(
            common.cell(
                {'method': method, 'resolution': resolution},
                network,
                {**common.factors(method, 'per-frame'), **RESOLUTIONS[resolution], **changes},
                dict(zip(dict(measures), numbers)),
                common.DAVIS,
                method,
            )
        )
    return common.add_study(
        config,
        cells,
        common.templates(cells),
        'ImageNet',
        measures=measures,
        columns=('method', 'resolution'),
    )
