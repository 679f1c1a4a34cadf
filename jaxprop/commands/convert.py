"""Converts a published file of weights to a network of ours: NAME.safetensors and its card.

The card, NAME.json, says how the network is built, where it is from and under which licence. The
file holds all layers, also those after the one that the release evaluates.

    jaxprop convert pretrained.pth --output=crw --licence=MIT
    jaxprop convert hf://OWNER/NAME --output=net
    jaxprop evaluate --config=davis_crw --config.network.name=crw --config.dataset.root=DAVIS
"""

import dataclasses
import os

from absl import app

from jaxprop.commands.command import Command, Option

_MAX_SHOWN = 3
_MAX_TEXT, _MAX_ERROR = 60, 300  # Longer texts are cut to so many characters.


def run(options, arguments, root):
    if len(arguments) != 1:
        raise app.UsageError('one argument is needed: FILE, a folder, or hf://OWNER/NAME')
    if not options.output:
        raise app.UsageError('--output=NAME is needed: NAME.safetensors and NAME.json are written')
    from jaxprop.checkpoints import native, published
    from jaxprop.evaluation import networks

    if options.dtype not in native.DTYPES:
        raise app.UsageError(f'--dtype is {options.dtype!r}; known: {", ".join(native.DTYPES)}')
    # Find the file, and recognise its network.
    [name] = arguments
    if networks.has_card(name):
        raise ValueError(f'{name} is a network of jaxprop already: there is nothing to convert')
    _check_free(options.output)
    located = networks.locate(name)
    file = published.read_published(located.path, options.layout, options.prefix)
    released, _ = file.build()
    output, notes = _last_layer(file, released)
    model, variables = file.build(output)
    notes += networks.alternatives(file, name, released)[1]
    # Write it as a network of ours.
    description = {
        'source': options.source or located.origin.get('repository', ''),
        'licence': options.licence or '',
        'layout': file.layout.name,
        'color': file.layout.color,
        'original': {
            'file': located.path.name,
            **located.origin,
            'sha256': networks.digest(located.path),
        },
    }
    native.save_pretrained(
        options.output,
        model,
        variables,
        {key: value for key, value in description.items() if value},
        options.dtype,
        output=released.output,
    )

    # Say what was found.
    behind = f', behind {file.prefix!r}' if file.prefix else ''
    print(f'recognised: {file.layout.name}, a {networks.kind(released)}{behind}')
    print(f'left out: {_left_out(file, output, model)}')
    print(f'layers that network.output may name: {", ".join(layers(model))}')
    evaluated = released.output or 'last'
    print(f'by default {evaluated}: {released.channels} channels, stride {released.stride}')
    if file.layout.color is None:
        print("nothing says what it was trained to see: 'rgb' (ImageNet's mean) or 'rgb_half'")
    elif file.layout.color != 'rgb':
        print(f'it sees {file.layout.color}')
    for note in notes:
        print(f'note: {note.replace("network.layout", "--layout")}')
    base = options.output.removesuffix('.safetensors')
    print(f'written: {base}.safetensors, {base}.json')


def _check_free(output):
    """Raises ValueError where other files than a network of ours would be overwritten."""
    from jaxprop.checkpoints import native

    base = output.removesuffix('.safetensors')
    there = [name for name in (f'{base}.safetensors', f'{base}.json') if os.path.lexists(name)]
    try:
        if there:
            native.describe_pretrained(base)
    except ValueError as error:
        raise ValueError(
            f'{there[0]} is there, and is not of a network of jaxprop: give another --output'
        ) from error


def _last_layer(file, released):
    """Finds the output that keeps all layers of the file; returns notes on layers left out too."""
    from jaxprop.models.resnet import STAGES, ResNet
    from jaxprop.models.vgg import OUTPUTS, VGG16

    last = {ResNet: STAGES[-1], VGG16: OUTPUTS[-1]}.get(type(released))
    # A projection belongs to the layer that the release evaluates.
    if last in (None, released.output) or getattr(released, 'projection', None) is not None:
        return None, ()
    try:
        file.build(last)
    except ValueError as error:
        text = ' '.join(str(error).split())[:_MAX_ERROR]
        return None, (f'layers after {released.output} are left out: {text}',)
    return last, ()


def layers(model):
    """Lists, as short texts, the values that `output` of this network may have."""
    from jaxprop.models.resnet import STAGES, ResNet
    from jaxprop.models.vgg import OUTPUTS

    if isinstance(model, ResNet):
        if model.projection is not None:
            return [f'{model.output} (with its projection)']
        return list(STAGES[: STAGES.index(model.output) + 1])
    if model.output in OUTPUTS:
        return [f'{OUTPUTS[0]} to {model.output}']
    return ['last', f'block0 to block{model.depth - 1}', 'blockN.queries, .keys, .values']


def _left_out(file, output, model):
    """A short text about the things that the file holds beside the network."""
    found = [*_unneeded(file, output, model), *file.beside, *file.left_out]
    shown = [text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]}...' for text in found]
    more = f' and {len(found) - _MAX_SHOWN} more' if len(found) > _MAX_SHOWN else ''
    return ', '.join(shown[:_MAX_SHOWN]) + more if found else 'nothing'


def _unneeded(file, output, model):
    """Lists the first parts of names of arrays that have the prefix and are not needed."""
    starts = {name.split('.')[0] for name in file.state}
    # Arrays whose names tell the layout may belong to a head or a decoder.
    telling = starts & {name.split('.')[0] for name in file.layout.signature}

    def is_same_without(left_out):
        state = {
            name: array for name, array in file.state.items() if name.split('.')[0] not in left_out
        }
        try:
            found, _ = dataclasses.replace(file, state=state).build(output)
        except (KeyError, ValueError):
            return False
        return found == model

    found = sorted(starts - telling)
    if not is_same_without(found):
        found = [one for one in found if is_same_without([one])]
    return sorted([*found, *(one for one in telling if is_same_without([*found, one]))])


COMMAND = Command(
    run=run,
    usage='FILE --output=NAME [--layout=LAYOUT] [--prefix=PREFIX] [--source=TEXT] ...',
    summary='converts a published file of weights to a network of ours',
    about=__doc__,
    extra='evaluate',
    options=(
        Option('output', 'NAME', 'NAME.safetensors and NAME.json are written'),
        Option('layout', 'mae', 'which network it is, where the names in the file leave it open'),
        Option('prefix', 'encoder_k.', "what precedes the network's names, where it holds several"),
        Option('source', 'URL', 'where the file is from, for the card'),
        Option('licence', 'MIT', "the file's licence, for the card"),
        Option('dtype', 'float16', 'of the weights; default float32', default='float32'),
    ),
)
