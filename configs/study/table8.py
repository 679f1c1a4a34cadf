"""Table 8: JHMDB, split 1.

UVC, CRW and VFS have the factors of their released code; VFS also scores frame 0. UVC+ has UVC's
factors. So has the row that UVC reports, but its network sees colours, and its features have length
1 with affinities multiplied by the square root of 512, as in UVC's code for ResNets. TimeCycle has
its factors for DAVIS, CorrFlow those of UVC.

Frames are 320x320, as in the released code. The study says that all are 240x240
(`--config.input.size=240`), but not the radius for that size. It also does not say the aggregation
and k of the others. Here the aggregation is the best one on DAVIS, and k is 10.
"""

from ..eval import davis_corrflow, davis_timecycle, jhmdb_crw, jhmdb_uvc, jhmdb_vfs
from . import common

# Method, localization, context, PCK@.1, PCK@.2.
ROWS = (
    ('MoCo', 'none', 7, 57.8, 79.1),
    ('ImageNet, reported by UVC', 'none', 7, 53.8, 74.6),
    ('ImageNet', 'none', 7, 59.2, 80.4),
    ('TimeCycle', 'none', 7, 57.3, 78.1),
    ('CorrFlow', 'none', 7, 58.5, 78.8),
    ('UVC', 'none', 7, 58.6, 79.8),
    ('UVC+', 'none', 7, 59.8, 81.3),
    ('CRW', 'fixed region', 7, 58.6, 80.5),
    ('VFS', 'fixed region', 4, 60.5, 79.5),
)
MEASURES = (('PCK@0.1', 'PCK@.1'), ('PCK@0.2', 'PCK@.2'))


def row(method):
    """Returns a row's network, its changes, and `chosen_on`."""
    uvc = common.released(jhmdb_uvc.get_config(), ('propagation', 'keypoints'))
    if method in ('MoCo', 'ImageNet'):
        return common.METHODS[method].network, common.factors(method, 'overall'), common.DAVIS
    if method == 'ImageNet, reported by UVC':
        scaled = {'propagation.normalize_features': True, 'propagation.temperature': 512**-0.5}
        return 'imagenet', {**uvc, **scaled}, ''
    if method == 'TimeCycle':
        changes = common.released(davis_timecycle.get_config(), ('network', 'propagation'))
        return 'timecycle', changes, ''
    if method == 'CorrFlow':
        network = common.released(davis_corrflow.get_config(), ('network',))
        return 'corrflow', {**uvc, **network, 'input.color': 'rgb_unit'}, ''
    if method == 'UVC+':
        return 'uvc_plus', {**uvc, 'input.color': 'lightness'}, ''
    config = {'UVC': jhmdb_uvc, 'CRW': jhmdb_crw, 'VFS': jhmdb_vfs}[method].get_config()
    changes = common.released(config, ('network', 'input', 'propagation', 'keypoints', 'measure'))
    if method == 'CRW':
        changes.update(common.METHODS[method].changes)
    return method.lower(), changes, ''


def get_config():
    config = common.jhmdb('table8', 'Table 8: joints of people (JHMDB)')
    cells = []
    for method, localization, context, *numbers in ROWS:
        network, changes, chosen_on = row(method)
        cells.append(
            common.cell(
                {'method': method, 'localization': localization, 'context': str(context)},
                network,
                changes,
                dict(zip(dict(MEASURES), numbers)),
                chosen_on,
                '' if 'reported' in method else method,
            )
        )
    return common.add_study(
        config,
        cells,
        common.templates(cells),
        measures=MEASURES,
        columns=('method', 'localization', 'context'),
    )
