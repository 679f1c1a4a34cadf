"""What a config says of a dataset: its sequences, and how they are labelled and scored."""

import functools

from absl import app

# What each dataset's folders hold.
FOLDERS = {
    'davis': {'root': 'JPEGImages, Annotations and ImageSets'},
    'jhmdb': {'root': 'Rename_Images, joint_positions and splits'},
    'vip': {'root': 'Images, Annotations and lists: VIP_Fine'},
    'badja': {'root': 'JPEGImages and Annotations of DAVIS', 'folder': 'the annotations NAME.json'},
}


def open_dataset(dataset):
    """Names of a config's sequences, each with a function that opens it."""
    from jaxprop.data.badja import badja_names, badja_sequence
    from jaxprop.data.davis import davis_names, davis_sequence
    from jaxprop.data.jhmdb import jhmdb_names, jhmdb_sequence
    from jaxprop.data.synthetic import synthetic_sequences
    from jaxprop.data.vip import vip_names, vip_sequence

    settings = dataset.to_dict()
    kind = settings.pop('kind')
    if kind == 'synthetic':
        return [(s.name, lambda s=s: s) for s in synthetic_sequences(**settings)]
    if kind not in FOLDERS:
        raise app.UsageError(
            f"dataset.kind is {kind!r}; it must be 'synthetic' or one of {tuple(FOLDERS)}"
        )
    for name, holds in FOLDERS[kind].items():
        if not settings[name]:
            raise app.UsageError(
                f'dataset.{name} is empty: say --config.dataset.{name}=FOLDER, the folder that '
                f'holds {holds}'
            )
    root, names = settings['root'], settings['names']
    if kind == 'davis':
        year = settings['year']
        names = names or davis_names(root, year, settings['split'])
        opened = functools.partial(
            davis_sequence, root, year=year, resolution=settings['resolution']
        )
    elif kind == 'jhmdb':
        names = names or jhmdb_names(root, settings['split'], settings['list'] or None)
        opened = functools.partial(jhmdb_sequence, root)
    elif kind == 'vip':
        names = names or vip_names(root, settings['split'])
        opened = functools.partial(vip_sequence, root, annotation=settings['annotation'])
    else:
        names = names or badja_names(settings['folder'])
        opened = functools.partial(
            badja_sequence, settings['folder'], root, resolution=settings['resolution']
        )
    return [(name, functools.partial(opened, name=name)) for name in names]


def open_benchmark(config):
    """How a config's sequences are labelled and scored."""
    from jaxprop.evaluation import benchmarks

    kind = config.dataset.kind
    if kind in ('jhmdb', 'badja'):
        return benchmarks.Keypoints(**config.measure)
    if kind == 'vip':
        is_instance = config.dataset.annotation == 'instance'
        return (benchmarks.Instances if is_instance else benchmarks.Parts)(**config.measure)
    return benchmarks.Objects()
