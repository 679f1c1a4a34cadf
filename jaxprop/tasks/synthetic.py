"""The embedded rendered videos, scored as DAVIS scores objects."""

from jaxprop.data.synthetic import synthetic_sequences
from jaxprop.tasks.objects import Objects


def open_task(measure, **settings):
    """Opens the rendered videos that `jaxprop.data.synthetic.synthetic_sequences` makes."""

    def sequences():
        made = synthetic_sequences(**settings)
        return [(sequence.name, lambda sequence=sequence: sequence) for sequence in made]

    return Objects(sequences, **measure)
