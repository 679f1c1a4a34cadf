"""The figure of a study: curves of what was measured, drawn by matplotlib."""

import collections
import itertools
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxprop.report.render import is_number

if typing.TYPE_CHECKING:  # Who writes only tables need not load it.
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

# Okabe and Ito's colours, told apart by the colour-blind; without their yellow, pale on white.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_MARKERS = 'os^DvPX*'
_LINE_STYLES = {'': '-', 'overall': '-', 'per-frame': '--'}


def draw_figure(study: Mapping[str, Any], rows: Sequence[Row]) -> 'Figure':
    """Draws the first measure of a study, in percent, as curves: panels side by side.

    A curve's first label gives it colour and marker, the others its line: per-frame dashed, overall
    solid. A method's colour is the same whether or not others were run. The lines' labels are the
    curves' names.

    Args:
      study: 'columns', 'pivot' and 'measures' as for `write_table`; 'curves', the names of the
        labels that tell curves apart; 'panels', each with 'label', 'title', 'x', what is on its
        axis, and optionally 'log', whether that axis is logarithmic.
      rows: as for `write_table`, with the labels 'panel', a panel's 'label', and 'x', a number.

    Raises:
      ValueError: a row lacks a label that the study names, its panel is none of the study's, or
        its x is no number.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = {panel['label']: panel for panel in study['panels']}
    check_labels(study, rows, ('panel', 'x', *study['curves']))
    for row in rows:
        panel, x = row['labels']['panel'], row['labels']['x']
        if panel not in panels:
            raise ValueError(f'the panel of a row is {panel!r}; the study has {list(panels)}')
        if not is_number(x):
            raise ValueError(f'x of a row in panel {panel} is {x!r}; it must be a number')

    methods = dict.fromkeys(curve_of(study, row)[0] for row in rows)
    looks = {
        method: {'color': colour, 'marker': marker, 'markersize': 5}
        for method, colour, marker in zip(
            methods, itertools.cycle(_COLOURS), itertools.cycle(_MARKERS)
        )
    }
    kinds = dict.fromkeys(curve_of(study, row)[1] for row in rows)
    others = [kind for kind in kinds if kind not in _LINE_STYLES]
    styles = {**_LINE_STYLES, **dict(zip(others, itertools.cycle((':', '-.'))))}

    key, heading = study['measures'][0]
    figure = Figure(figsize=(0.8 + 4 * len(panels), 4.4), layout='constrained')
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown = set()
    for axes, (label, panel) in zip(all_axes, panels.items()):
        members = [row for row in rows if row['labels']['panel'] == label]
        curves = collections.defaultdict(list)
        for row in members:
            if (value := value_of(row, key)) is not None:
                curves[curve_of(study, row)].append((row['labels']['x'], 100 * value))
        for (method, kind), points in curves.items():
            axes.plot(
                *zip(*sorted(points)),
                **looks[method],
                linestyle=styles[kind],
                linewidth=1.5,
                label=join(method, kind),
            )
            shown |= {method, kind}
        if panel.get('log'):
            axes.set_xscale('log')
        ticks = sorted({row['labels']['x'] for row in members})
        axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(labelsize='small')
        axes.set(title=_plain(f'({label}) {panel["title"]}'), xlabel=_plain(panel['x']))
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    all_axes[0].set_ylabel(_plain(f'{heading} (%)'))

    entries = [
        Line2D([], [], **looks[method], label=_plain(method))
        for method in methods
        if method in shown
    ]
    entries += [
        Line2D([], [], color='0.35', linestyle=styles[kind], label=_plain(kind))
        for kind in kinds
        if kind and kind in shown
    ]
    if entries:
        figure.legend(
            handles=entries,
            loc='outside lower center',
            frameon=False,
            ncols=min(4 * len(panels), len(entries)),
        )
    return figure


def curve_of(study: Mapping[str, Any], row: Row) -> tuple[str, str]:
    """A curve's first label, and its others as one text."""
    first, *others = (str(row['labels'][name]) for name in study['curves'])
    return first, join(*others)


def join(*parts: str) -> str:
    """The parts that are not empty, with commas between."""
    return ', '.join(part for part in parts if part)


def check_labels(study: Mapping[str, Any], rows: Iterable[Row], others: Sequence[str] = ()) -> None:
    """Raises ValueError where a row lacks a label that the study names, or one of the others."""
    names = (*study['columns'], *filter(None, [study.get('pivot')]), *others)
    for row in rows:
        if missing := [name for name in names if name not in row['labels']]:
            raise ValueError(f'a row has the labels {row["labels"]}; it must have {missing} too')


def value_of(row: Row, key: str) -> float | None:
    """The measured value of a row; None if it is no number."""
    value = (row['measured'] or {}).get(key)
    return value if is_number(value) else None


def _plain(text: str) -> str:
    """The text for matplotlib, which would read formulas in it, and write only UTF-8."""
    return text.replace('$', r'\$').encode(errors='replace').decode()
