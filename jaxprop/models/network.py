"""Functions for networks of any class: find one by name, copy it, set its batch statistics."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from jaxprop.names import unknown

PACKAGE = 'jaxprop.models'
# Attributes of networks without any effect on the features of a trained one.
TRAINING_ALONE = ('frozen_until', 'norm_momentum', 'norm_axis_name', 'zero_init_residual')


def find_network(name: str) -> type[nn.Module]:
    """Finds a network class by its name in the modules of `jaxprop.models`.

    A network is a Flax module that can be built without arguments, see `jaxprop.models`.

    Args:
      name: of the class, in upper or lower case: 'ResNet', 'resnet'.

    Raises:
      ValueError: no network has this name.
    """
    found = _networks()
    by_lower = {key.lower(): value for key, value in found.items()}
    network = found.get(name) or by_lower.get(str(name).lower())
    if network is None:
        raise unknown('network', name, found)
    return network


def _networks() -> dict[str, type[nn.Module]]:
    """All networks of `jaxprop.models`, by the names of their classes."""
    found = {}
    package = importlib.import_module(PACKAGE)
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f'{PACKAGE}.{info.name}')
        for key, value in vars(module).items():
            if _is_network(value) and value.__module__ == module.__name__:
                found[key] = value
    return found


def _is_network(value: Any) -> bool:
    if not (isinstance(value, type) and issubclass(value, nn.Module)):
        return False
    missing = dataclasses.MISSING
    return all(
        not field.init or field.default is not missing or field.default_factory is not missing
        for field in dataclasses.fields(value)
    )


def attribute_names(network: nn.Module | type[nn.Module]) -> list[str]:
    """Returns the names of a network's own attributes, without those that Flax adds."""
    return [
        field.name for field in dataclasses.fields(network) if field.name not in ('parent', 'name')
    ]


def check_attributes(network: type[nn.Module], names: Iterable[str], of: str | None = None) -> None:
    """Raises ValueError where a network lacks an attribute of `names`; `of` says whose they are."""
    known = attribute_names(network)
    if unnamed := sorted(set(names) - set(known)):
        start = f'{of}: ' if of else ''
        raise ValueError(f'{start}{network.__name__} has no {unnamed}; known: {known}')


def known_attributes() -> dict[str, type]:
    """Returns the attributes that the networks of `jaxprop.models` have, each with its type.

    The type is that of the default, `object` where this is None or differs between networks.
    Attributes that matter to training alone are left out.
    """
    kinds: dict[str, set[type]] = {}
    for network in _networks().values():
        for field in dataclasses.fields(network):
            if field.name in attribute_names(network) and field.name not in TRAINING_ALONE:
                kinds.setdefault(field.name, set()).add(type(field.default))
    return {
        name: types.pop() if len(types := kinds[name] - {type(None)}) == 1 else object
        for name in sorted(kinds)
    }


def replace_attributes(model: nn.Module, **attributes: Any) -> nn.Module:
    """Returns a copy of a network with new values of those `attributes` that it has."""
    names = attribute_names(model)
    return model.clone(**{key: value for key, value in attributes.items() if key in names})


def estimate_batch_statistics(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array
) -> dict[str, Any]:
    """Replaces a network's running batch statistics by those of exactly these images.

    The running statistics of an untrained network are mean 0 and variance 1, which its activations
    do not have. With the statistics of these images every norm's result has mean 0 and variance 1
    on them, and `model.apply(result, images)` equals the features that training computes of them.

    Args:
      model: a network whose norms are `nn.BatchNorm`, or which has none. Its `frozen_until`, and
        the norms' `momentum` and `axis_name`, have no effect.
      variables: all variables of the network.
      images: `[B, H, W, 3]`, normalised as the network takes them.

    Returns:
      `variables` with new `batch_stats`; unchanged where there are none.

    >>> import jax
    >>> import jaxprop
    >>> model = jaxprop.ResNet(output='res1')
    >>> images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    >>> variables = jax.jit(model.init)(jax.random.key(1), images)
    >>> estimate = jax.jit(jaxprop.estimate_batch_statistics, static_argnames='model')
    >>> sorted(estimate(model, variables, images))
    ['batch_stats', 'params']
    """
    if 'batch_stats' not in variables:
        return dict(variables)

    def forget(method, args, kwargs, context):
        # Flax forbids setting a module's attributes. This module lives for this call only, so
        # setting them past Flax changes nothing else.
        if isinstance(context.module, nn.BatchNorm):
            object.__setattr__(context.module, 'momentum', 0.0)
            object.__setattr__(context.module, 'axis_name', None)
        return method(*args, **kwargs)

    model = replace_attributes(model, frozen_until=None)
    with nn.intercept_methods(forget):
        _, updates = model.apply(variables, images, train=True, mutable=['batch_stats'])
    return {**variables, **updates}
