"""Table 8: JHMDB, split 1.

UVC, CRW and VFS have the factors of their released code; VFS's count frame 0. UVC+ has UVC's, and
so has the row that UVC reports, with colours and with unit features whose affinities are scaled by
the root of 512, as its code treats ResNets. TimeCycle has its factors for DAVIS, CorrFlow those of
UVC. Frames are 320x320, as the released code has them; the study says that all are 240x240, but not
the radius then: `--config.input.size=240`. What it doesn't say either: the others' aggregation,
which is what is best on DAVIS, and k = 10.
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
    """The network, the changes, and where they were chosen."""
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
