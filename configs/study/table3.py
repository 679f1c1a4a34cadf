"""Table 3: fine-tuning after the change of stride. DAVIS 2017 val, per frame, k = 5, n = 7."""

from . import common

# Method, fine-tuned, JM, JO, FM, FO.
ROWS = (
    ('ImageNet', 'no', 51.3, 56.7, 56.6, 59.6),
    ('ImageNet', 'yes', 53.4, 58.8, 59.0, 63.0),
    ('Rotation', 'no', 44.8, 45.8, 50.7, 50.1),
    ('Rotation', 'yes', 48.1, 50.1, 54.3, 54.8),
    ('MoCo', 'no', 51.8, 57.3, 56.4, 59.3),
    ('MoCo', 'yes', 53.2, 59.1, 57.5, 60.2),
)


def get_config():
    config = common.davis('table3', 'Table 3: fine-tuning after the change of stride (DAVIS)')
    measures = common.DAVIS_MEASURES[1:]
    cells = [
        common.cell(
            {'method': method, 'fine-tuned': tuned},
            method.lower() + ('_finetuned' if tuned == 'yes' else ''),
            common.factors(method, 'per-frame'),
            dict(zip(dict(measures), numbers)),
            common.DAVIS,
            method,
        )
        for method, tuned, *numbers in ROWS
    ]
    return common.add_study(
        config,
        cells,
        common.templates(cells, **{'fine-tuned': '-'}),
        'ImageNet',
        measures=measures,
        columns=('method', 'fine-tuned'),
    )
