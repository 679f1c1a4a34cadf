"""Propagation by flat settings: oracles read these, the package needs a method and an execution."""

import dataclasses
from typing import Any

import jaxprop
from jaxprop import methods


@dataclasses.dataclass(frozen=True)
class Flat:
    """Flat settings as attributes, with the method and the execution made of them. Hashable."""

    method: jaxprop.Propagation
    execution: jaxprop.Execution
    given: dict[str, Any] = dataclasses.field(compare=False)

    def __getattr__(self, name):
        if name not in self.given:
            raise AttributeError(name)
        return self.given[name]

    def replace(self, **changed):
        return flat(**{**self.given, **changed})


def flat(**settings):
    method = methods.from_settings(**settings)
    execution = methods.execution_from_settings(**settings)
    # What is given comes first: the oracles are not to depend on `methods.settings`.
    return Flat(method, execution, {**methods.settings(method), **settings})


def init_context(features, label, *, config, entry=None):
    return jaxprop.init_context(features, label, config.method, entry=entry)


def propagate_step(context, features, *, config):
    return jaxprop.propagate_step(context, features, config.method, execution=config.execution)


def propagate_video(features, first_label, length=None, *, config):
    return jaxprop.propagate_video(
        features, first_label, config.method, length=length, execution=config.execution
    )
