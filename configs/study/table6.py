"""Table 6: methods side by side. DAVIS 2017 val: a, n = 7; b, the best factors; c, twice the grid.

CRW, UVC, TimeCycle, VFS, CorrFlow and MAST have the factors of their released code, the others
those of the study. Part a changes only the localization and n of CRW's factors, so CRW's k is 10
there too. The study does not say two things, which are assumed here: k is CRW's 10 where n = 20,
and the radius in part c is the same 12 cells.
"""

from ..eval import (
    davis_corrflow,
    davis_crw,
    davis_mast,
    davis_timecycle,
    davis_uvc,
    davis_vfs,
)
from . import common

# Part, method, data, aggregation, localization, n, J&F, JM, JO, FM, FO.
A, B, C = 'a, 1x grid', 'b, 1x grid', 'c, 2x grid'
IN_REGION = 'per-frame, region softmax'
ROWS = (
    (A, 'MoCo', 'ImageNet', 'overall', 'none', 7, 60.0, 58.1, 66.9, 61.9, 70.7),
    (A, 'ImageNet', 'ImageNet', 'overall', 'none', 7, 61.8, 59.4, 68.7, 64.2, 75.0),
    (A, 'TimeCycle (480x480)', 'VLOG', 'per-frame', 'none', 7, 48.2, 46.4, 50.0, 50.0, 48.0),
    (A, 'UVC', 'Kinetics', 'per-frame', 'none', 7, 57.8, 56.3, 65.0, 59.2, 64.1),
    (A, 'UVC+', 'Kinetics', 'per-frame', 'none', 7, 62.6, 60.6, 71.6, 64.6, 74.8),
    (A, 'CRW', 'Kinetics', 'overall', 'none', 7, 61.6, 59.6, 69.0, 63.5, 73.4),
    (B, 'MoCo', 'ImageNet', 'overall', 'fixed region', 20, 62.7, 60.8, 71.6, 64.6, 73.5),
    (B, 'ImageNet', 'ImageNet', 'overall', 'fixed region', 20, 65.8, 63.5, 75.5, 68.1, 80.6),
    (B, 'UVC', 'Kinetics', 'per-frame', 'track', 7, 59.5, 57.7, 68.3, 61.3, 69.8),
    (B, 'UVC+', 'Kinetics', 'per-frame', 'track', 10, 66.0, 63.8, 76.9, 68.2, 80.1),
    (B, 'CRW', 'Kinetics', 'overall', 'fixed region', 20, 67.5, 64.8, 76.1, 70.2, 82.1),
    (B, 'VFS', 'Kinetics', 'overall', 'fixed region', 20, 66.7, 64.0, None, 69.4, None),
    (C, 'MoCo upsampled', 'ImageNet', 'overall', 'fixed region', 20, 65.8, 63.2, 73.6, 68.3, 79.1),
    (
        C,
        'ImageNet upsampled',
        'ImageNet',
        'overall',
        'fixed region',
        20,
        67.8,
        65.1,
        75.0,
        70.5,
        81.6,
    ),
    (
        C,
        'CorrFlow (no first frame)',
        'OxUvA',
        IN_REGION,
        'fixed region',
        1,
        50.3,
        48.4,
        53.2,
        52.2,
        56.0,
    ),
    (C, 'MAST', 'YouTube-VOS', IN_REGION, 'predicted region', 4, 65.5, 63.3, 73.2, 67.6, 77.7),
    (C, 'UVC+ upsampled', 'Kinetics', 'per-frame', 'track', 10, 67.6, 65.0, 75.7, 70.1, 79.6),
    (C, 'CRW upsampled', 'Kinetics', 'overall', 'fixed region', 20, 70.6, 68.5, 79.3, 72.7, 85.8),
)
RELEASED = {
    'CorrFlow': davis_corrflow,
    'MAST': davis_mast,
    'TimeCycle': davis_timecycle,
    'UVC': davis_uvc,
    'VFS': davis_vfs,
    'CRW': davis_crw,
}


def get_config():
    config = common.davis('table6', 'Table 6: methods side by side (DAVIS)')
    cells = []
    for part, method, data, aggregation, localization, num_context, *numbers in ROWS:
        name = method.split()[0]
        if name in RELEASED:
            changes = common.released(RELEASED[name].get_config())
        else:
            changes = common.factors(name, aggregation)
        if name in common.METHODS:
            changes.update(common.METHODS[name].changes)
            changes.update(common.LOCALIZATIONS[localization])
            changes['propagation.num_context'] = num_context
            changes['propagation.num_neighbors'] = 10 if num_context == 20 or name == 'CRW' else 5
        if name == 'TimeCycle':
            changes['input.size'] = 480
        if 'upsampled' in method:
            changes['input.upsample'] = 2.0
            if (
                name == 'CRW'
            ):  # CRW's code resizes frames so; at native size it has nothing to resize.
                changes['input.precision'] = 'float32'
        # The study chose aggregation and localization of CRW, too, so CRW counts as chosen.
        chosen = name in common.METHODS and name != 'UVC'
        cells.append(
            common.cell(
                {
                    'part': part,
                    'method': method,
                    'data': data,
                    'aggregation': aggregation,
                    'localization': localization,
                    'n': str(num_context),
                },
                common.METHODS[name].network if name in common.METHODS else name.lower(),
                changes,
                dict(zip(dict(common.DAVIS_MEASURES), numbers)),
                common.DAVIS if chosen else '',
                name,
            )
        )
    return common.add_study(
        config,
        cells,
        common.templates(cells, data='-'),
        measures=common.DAVIS_MEASURES,
        columns=('part', 'method', 'data', 'aggregation', 'localization', 'n'),
    )
