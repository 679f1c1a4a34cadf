"""Table 4: aggregation and localization. DAVIS 2017 val, k = 5, n = 7, radius 12."""

from . import common

# Method, localization, J&F per frame and overall.
ROWS = (
    ('Rotation', 'none', 51.3, 57.4),
    ('Rotation', 'fixed region', 58.6, 62.3),
    ('Rotation', 'track', 54.1, None),
    ('MoCo', 'none', 55.6, 60.0),
    ('MoCo', 'fixed region', 58.9, 62.2),
    ('MoCo', 'track', 59.4, None),
    ('ImageNet', 'none', 56.4, 61.8),
    ('ImageNet', 'fixed region', 60.4, 65.1),
    ('ImageNet', 'track', 59.3, None),
    ('UVC', 'none', 59.4, 49.0),
    ('UVC', 'fixed region', 56.5, 48.2),
    ('UVC', 'track', 60.8, None),
    ('CRW', 'none', 56.2, 62.1),
    ('CRW', 'fixed region', 59.0, 65.8),
    ('CRW', 'track', 60.3, None),
)


def get_config():
    config = common.davis('table4', 'Table 4: aggregation and localization (DAVIS)')
    cells = [
        common.cell(
            {'method': method, 'localization': localization, 'aggregation': aggregation},
            common.METHODS[method].network,
            {**common.factors(method, aggregation), **common.LOCALIZATIONS[localization]},
            {'J&F-Mean': number},
            common.DAVIS,
            method,
        )
        for method, localization, *numbers in ROWS
        for aggregation, number in zip(common.AGGREGATIONS, numbers)
        if number is not None
    ]  # Tracked boxes go with per-frame aggregation alone, so 'track' has one number.
    return common.add_study(
        config,
        cells,
        common.templates(cells),
        measures=common.DAVIS_MEASURES[:1],
        columns=('method', 'localization', 'aggregation'),
        pivot='aggregation',
    )
