"""Two objectives on one backbone: a video objective and an image objective, as in UVC+."""

import math

import jax
import jax.numpy as jnp

from jaxprop.objectives.objective import Objective


def combine(
    video: Objective,
    image: Objective,
    weight: float,
    *,
    gradient_norms: bool = False,
    axis_name: str | None = None,
) -> Objective:
    """The sum video loss + weight * image loss, in one step on a shared backbone.

    The batch is `{'video': the video objective's batch, 'image': the image objective's batch}`. In
    `init` and in `loss`, `jax.random.split(rng)` gives the video objective its first key and the
    image objective its second. Parameters and state are
    `{'backbone': ..., 'video': ..., 'image': ...}`, where 'video' and 'image' hold all but the
    backbone. `init` takes the backbone's first values from the video objective, and the result's
    `color` and `affinity` are the video objective's too.

    The backbone's batch statistics go through the video loss first and from there through the image
    loss, so every step updates the running statistics twice. Training uses the statistics of the
    batch, so the running ones don't influence it. The metrics are those of both objectives, and
    their losses without the weight, as 'video/NAME' and 'image/NAME'.

    Args:
      video: the objective of `batch['video']`.
      image: the objective of `batch['image']`, with the same backbone.
      weight: lambda. The study: 0.3 for rotation, 0.1 for MoCo, 0.05 for classification.
      gradient_norms: adds the metrics 'video/gradient_norm' and 'image/gradient_norm', the lengths
        of the two losses' gradients with respect to the backbone, without the weight. They help to
        choose the weight, and cost a second pass through the network. If training takes a batch in
        parts, the metrics are the mean over the parts of the lengths in each.
      axis_name: the mapped axis of devices over which these gradients are averaged, if any.

    Raises:
      ValueError: the weight is negative or not finite; (from init) the backbones differ.

    Source: McKee et al., "Transfer of Representations to Video Label Propagation: Implementation
    Factors Matter", BMVC 2022.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f'weight is {weight}; needed: a finite number of at least 0')

    def init(rng, batch):
        video_rng, image_rng = jax.random.split(rng)
        video_variables = video.init(video_rng, batch['video'])
        image_variables = image.init(image_rng, batch['image'])
        variables = {}
        for part in ('params', 'state'):
            backbone, video_rest = _take_backbone(video_variables[part])
            other, image_rest = _take_backbone(image_variables[part])
            if _shapes(backbone) != _shapes(other):
                raise ValueError(
                    f'the objectives have different backbones: their {part} are '
                    f'{_shapes(backbone)} and {_shapes(other)}; needed: the same network'
                )
            variables[part] = {'backbone': backbone, 'video': video_rest, 'image': image_rest}
        return variables

    def loss(params, state, batch, rng):
        video_rng, image_rng = jax.random.split(rng)
        backbone = state['backbone']
        losses, rest, metrics = {}, {}, {}
        for name, part, key in (('video', video, video_rng), ('image', image, image_rng)):
            part_params = {'backbone': params['backbone'], **params.get(name, {})}
            inputs = {'backbone': backbone, **state.get(name, {})}, batch[name], key
            losses[name], (part_state, part_metrics) = part.loss(part_params, *inputs)
            backbone, rest[name] = _take_backbone(part_state)
            metrics[f'{name}/loss'] = losses[name]
            if gradient_norms:
                metrics[f'{name}/gradient_norm'] = _gradient_norm(
                    part, part_params, *inputs, axis_name=axis_name
                )
            metrics.update({f'{name}/{term}': value for term, value in part_metrics.items()})
        total = losses['video'] + weight * losses['image']
        return total, ({'backbone': backbone, **rest}, metrics)

    return Objective(init, loss, video.color, video.affinity)


def _gradient_norm(objective, params, state, batch, rng, axis_name):
    """Computes the length of the gradient of an objective's loss with respect to the backbone."""
    # The norm is a metric alone: the gradient of the step need not pass through it.
    params, state = jax.lax.stop_gradient((params, state))

    def loss(backbone):
        return objective.loss({**params, 'backbone': backbone}, state, batch, rng)[0]

    gradient = jax.grad(loss)(params['backbone'])
    if axis_name is not None:
        gradient = jax.lax.pmean(gradient, axis_name)
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)))


def _take_backbone(variables):
    """Splits variables into the backbone's and the others."""
    others = {name: value for name, value in variables.items() if name != 'backbone'}
    return variables.get('backbone', {}), others


def _shapes(variables):
    return jax.tree.map(lambda value: value.shape, variables)
