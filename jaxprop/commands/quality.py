"""The choice between speed and quality: `--quality=fast|normal|best` of `jaxprop propagate`."""

from collections.abc import Collection
from typing import Any

from absl import flags
from ml_collections import config_flags

from jaxprop.commands.command import Option, one_of

# The settings of a config that each quality changes. The radius is in cells, so it goes with the
# size of the input. The times in the help are those of benchmarks/quality.py.
QUALITIES = {
    'fast': {
        'input.resize': 'short_side',
        'input.size': 240,
        'propagation.radius': 6.0,
    },
    'normal': {},
    'best': {'input.upsample': 1.5, 'propagation.radius': 18.0},
}
QUALITY = Option(
    'quality',
    'fast',
    'or normal (default), best: 0.4, 2.3, 9.4 processor seconds a frame of 480p',
    one_of(*QUALITIES),
    'normal',
)


def set_quality(options: flags.FlagValues) -> None:
    """Changes the config as the flag `quality` says; settings that the user gave stay."""
    given = config_flags.get_override_values(options['config'])
    options.config.update_from_flattened_dict(changes(options.quality, given))


def changes(quality: str, given: Collection[str]) -> dict[str, Any]:
    """Lists the settings that a quality changes, by name.

    Args:
      quality: a key of `QUALITIES`.
      given: names of settings that the user gave, which stay. If one is of the input, all of the
        input stay, and the radius, which goes with them.
    """
    stays = ('input.', 'propagation.radius') if any(n.startswith('input.') for n in given) else ()
    return {
        name: value
        for name, value in QUALITIES[quality].items()
        if name not in given and not name.startswith(stays)
    }
