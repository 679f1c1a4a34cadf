"""Figure 4: J&F on DAVIS 2017 val against 1/T, n and k, without localization.

(a) 1/T with k = 5, n = 7; (b) n with k = 5; (c) k with n = 7. The last two have the best T of (a).
"""

from . import common

PANELS = (
    {'label': 'a', 'x': '1/T', 'title': 'temperature', 'log': False},
    {'label': 'b', 'x': 'n', 'title': 'context frames', 'log': False},
    {'label': 'c', 'x': 'k', 'title': 'neighbours', 'log': True},
)
# For each panel the setting that is x, and its values; 'temperature' has values of 1/T.
POINTS = {
    'a': ('temperature', (1, 5, 10, 20, 30, 40, 50, 60, 80, 100)),
    'b': ('num_context', (1, 2, 3, 5, 7, 10, 15, 20)),
    'c': ('num_neighbors', (1, 2, 3, 5, 10, 20, 50, 100)),
}


def get_config():
    config = common.davis('figure4', 'Figure 4: temperature, context and neighbours (DAVIS)')
    return add_curves(config, PANELS, POINTS, measures=common.DAVIS_MEASURES[:1])


def add_curves(config, panels, points, **study):
    """Adds the curves of all methods with both aggregations to a config."""
    cells = []
    for method in common.FIGURE_METHODS:
        for aggregation in common.AGGREGATIONS:
            for panel, (name, values) in points.items():
                for x in values:
                    changed = {f'propagation.{name}': 1 / x if name == 'temperature' else x}
                    cells.append(
                        common.cell(
                            {'panel': panel, 'x': x, 'method': method, 'aggregation': aggregation},
                            common.METHODS[method].network,
                            {**common.factors(method, aggregation), **changed},
                            {},
                            '' if name == 'temperature' else common.DAVIS,
                            method,
                        )
                    )
    return common.add_study(
        config,
        cells,
        common.templates(cells),
        kind='figure',
        curves=('method', 'aggregation'),
        panels=panels,
        columns=('panel', 'method', 'aggregation', 'x'),
        **study,
    )
