"""Figure 5: mIoU on VIP val against n with k = 10, and against k with n = 1.

The curves are those of Figure 4, with the temperatures that were best there.
"""

from . import common, figure4

PANELS = (
    {'label': 'a', 'x': 'n', 'title': 'context frames', 'log': False},
    {'label': 'b', 'x': 'k', 'title': 'neighbours', 'log': True},
)
POINTS = {
    'a': ('num_context', (1, 2, 3, 4, 6, 8, 10)),
    'b': ('num_neighbors', (1, 2, 5, 10, 20, 50, 100)),
}


def get_config():
    config = common.vip('figure5', 'Figure 5: context and neighbours (VIP)')
    return figure4.add_curves(config, PANELS, POINTS, measures=(('mIoU', 'mIoU'),))
