"""Makes suites: several benchmarks on one network, with the factors of one system."""

from ml_collections import ConfigDict


def suite(system, configs, chosen=''):
    """Makes the config of a suite.

    Args:
      system: 'crw', of whose factors the benchmarks have theirs.
      configs: a module of configs/eval for each benchmark, by the benchmark's name.
      chosen: names of benchmarks, in any case and joined by commas; '' for all.

    Raises:
      ValueError: there is no such benchmark, or one is there twice.
    """
    names = chosen.lower().split(',') if chosen else list(configs)
    for name in names:
        if name not in configs:
            raise ValueError(f'there is no benchmark {name!r} in it, but {", ".join(configs)}')
    if len(set(names)) < len(names):
        raise ValueError(f'a benchmark is there twice in {chosen!r}')
    benchmarks = {name: configs[name].get_config() for name in names}
    network = next(iter(benchmarks.values())).network
    for config in benchmarks.values():
        del config.network  # All have that of the suite.
    return ConfigDict(
        {
            'name': f'suite_{system}',
            'title': f"Several benchmarks, {system.upper()}'s factors",
            'suite': tuple(names),
            'network': network,
            'report_frames': 40,  # Of `--compare`; each benchmark has its own.
            **benchmarks,
        }
    )
