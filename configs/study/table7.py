"""Table 7: VIP val. Parts (mIoU) and instances (AP^r_vol) are cells of their own.

The context is n and does not count frame 0, as in UVC's code, although the table's caption counts
it. UVC, VFS and CRW have the factors of their released code, except for the localization and n. UVC
has the study's k = 50, CRW its own label maps, and VFS its factors for DAVIS. UVC+ has UVC's
factors. The row that UVC reports has UVC's factors, and its network sees colours. The study does
not say the aggregation and k of the others. Here the aggregation is the best one on DAVIS, and k is
10, as in Figure 5.
"""

from ..eval import davis_timecycle, davis_vfs, vip_crw, vip_uvc
from . import common

# Part, method, localization, context, mIoU, AP^r_vol.
ROWS = (
    ('a', 'MoCo', 'none', 1, 32.6, 16.6),
    ('a', 'ImageNet, reported by UVC', 'none', 1, 31.8, 12.6),
    ('a', 'ImageNet', 'none', 1, 35.7, 17.5),
    ('a', 'TimeCycle', 'none', 1, 28.9, 15.6),
    ('a', 'CRW', 'none', 1, 35.1, None),
    ('a', 'UVC', 'none', 1, 34.1, 17.7),
    ('a', 'UVC+', 'none', 1, 38.3, 22.2),
    ('b', 'ImageNet', 'fixed region', 4, 37.7, None),
    ('b', 'UVC+', 'fixed region', 4, 38.9, None),
    ('b', 'CRW', 'fixed region', 4, 38.6, None),
    ('b', 'VFS', 'fixed region', 8, 39.9, None),
)
MEASURES = (('mIoU', 'mIoU'), ('AP^r_vol', 'AP^r_vol'))
# The annotation that each measure scores: its label in the table, and its name as a setting.
ANNOTATIONS = {'mIoU': ('parts', 'category'), 'AP^r_vol': ('instances', 'instance')}


def row(method):
    """Returns a row's network, its changes beside localization and context, and `chosen_on`."""
    only = ('network', 'propagation')
    if method == 'ImageNet, reported by UVC':
        return 'imagenet', common.released(vip_uvc.get_config(), ('propagation', 'labels')), ''
    if method in ('TimeCycle', 'VFS'):
        config = davis_timecycle if method == 'TimeCycle' else davis_vfs
        return method.lower(), common.released(config.get_config(), only), ''
    network = common.METHODS[method].network
    if method == 'CRW':
        return (
            network,
            {**common.released(vip_crw.get_config()), **common.METHODS[method].changes},
            '',
        )
    if method == 'UVC':
        changes = common.released(vip_uvc.get_config())
        return network, {**changes, 'propagation.num_neighbors': 50}, ''
    if method == 'UVC+':
        changes = common.factors(method, 'per-frame')
        return network, {**changes, 'propagation.num_neighbors': 50}, common.VIP
    return network, common.factors(method, 'overall'), common.VIP


def get_config():
    config = common.vip('table7', 'Table 7: parts of people (VIP)')
    cells = []
    for part, method, localization, context, *numbers in ROWS:
        network, changes, chosen_on = row(method)
        changes.update(common.LOCALIZATIONS[localization])
        changes['propagation.num_context'] = context
        for (key, _), number in zip(MEASURES, numbers):
            text, annotation = ANNOTATIONS[key]
            cells.append(
                common.cell(
                    {
                        'part': part,
                        'method': method,
                        'localization': localization,
                        'context': str(context),
                        'annotation': text,
                    },
                    network,
                    {**changes, 'dataset.annotation': annotation},
                    {key: number},
                    chosen_on,
                    '' if 'reported' in method else method,
                )
            )
    published = [one for one in cells if one['published']]
    return common.add_study(
        config,
        published,
        common.templates(cells),
        measures=MEASURES,
        columns=('part', 'method', 'localization', 'context', 'annotation'),
    )
