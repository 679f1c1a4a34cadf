"""Pretext tasks, each a pair of pure functions `init` and `loss`: one module per task."""

from jaxprop.objectives.objective import Objective

__all__ = ['Objective']
