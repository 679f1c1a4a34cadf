"""Honest tuning: T, k, n and radius are chosen on DAVIS's `train`, then reported on `val`.

    python evaluate.py --config=configs/study/tune.py --config.dataset.root=DAVIS

Tuning starts from CRW's factors. `--config.network.name` sets the network.
"""

from ml_collections import ConfigDict

from ..eval import davis_crw
from . import common


def get_config():
    config = davis_crw.get_config()
    config.name = 'tune'
    config.title = 'Settings chosen on train, reported on val'
    config.report_frames = 6
    config.tuning = ConfigDict(
        {
            # Changes of `dataset`: settings are chosen with those of 'on', and scores are reported
            # with those of 'report'.
            'on': {'split': 'train'},
            'report': {'split': 'val'},
            'measure': 'J&F-Mean',
            'reported': common.DAVIS_MEASURES,
            # The factors in the order in which they are chosen, and how often all are chosen anew.
            'order': ('temperature', 'num_neighbors', 'num_context', 'radius'),
            'rounds': 1,
            'candidates': {
                'temperature': (0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.2, 1.0),
                'num_neighbors': (5, 10, 20, 40),
                'num_context': (4, 7, 10, 20),
                'radius': (6.0, 9.0, 12.0, 15.0, 20.0),
            },
            # CRW's temperature is the one that the study's Figure 4 found best on val.
            'start_chosen_on': common.DAVIS,
        }
    )
    return config
