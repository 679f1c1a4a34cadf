"""The labeller of videos, and the plan of a video, which is made before its frames are read."""

import dataclasses
import itertools
import math
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxprop import methods
from jaxprop.evaluation import targets
from jaxprop.evaluation.features import FeatureSource, OpenedVideo, check_frame
from jaxprop.evaluation.sources import open_source
from jaxprop.evaluation.stream import Video
from jaxprop.evaluation.targets import MaskTarget, Sizes, Target
from jaxprop.propagation import Propagation
from jaxprop.rules.rule import Execution


@dataclasses.dataclass(frozen=True, eq=False)
class Labeller:
    """All that labels videos: features, propagation, and the conversion of labels.

    Attributes:
      source: gives the features of their frames.
      propagation: carries soft labels by these features.
      target: makes soft labels of a first frame, and predictions of soft labels.
      execution: how the propagation is computed. Results do not depend on it, so it is not among
        the recorded settings.
    """

    source: FeatureSource
    propagation: Propagation
    target: Target = MaskTarget()
    execution: Execution = Execution()

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], source: FeatureSource | None = None
    ) -> 'Labeller':
        """Makes a labeller of a config in configs/eval.

        Args:
          config: its `network`, `input`, `propagation`, and `labels` or `keypoints` are used.
          source: of the features, in place of the config's `network` and `input`.
        """
        return cls(
            open_source(config) if source is None else source,
            methods.from_settings(**config['propagation']),
            targets.from_config(config),
            methods.execution_from_settings(**config['propagation']),
        )

    @property
    def warnings(self) -> list[str]:
        """Sentences for every output: on the source, and on a temperature unlike its training's."""
        warnings, described = list(self.source.warnings), self.source.description
        # Exported arrays in a folder have the training of the network that computed them.
        trained = {**described.get('exported_from', {}), **described}.get('affinity')
        temperature = getattr(self.propagation.rule, 'temperature', None)
        normalize_features = self.propagation.normalize_features
        if not trained or temperature is None:
            return warnings
        if trained['normalize_features'] != normalize_features:
            return warnings  # Other affinities need other temperatures.
        wanted, temperature = (float(f'{t:.4g}') for t in (trained['temperature'], temperature))
        if not math.isclose(wanted, temperature, rel_tol=1e-3):
            warnings.append(
                f'{described["name"]} was trained with temperature {wanted}, it is evaluated with '
                f'{temperature}: --config.propagation.temperature={wanted} is that of its training.'
            )
        return warnings

    def settings(self) -> dict[str, Any]:
        """Returns every setting on which results depend, by name, as plain values for JSON."""
        return {
            'propagation': methods.settings(self.propagation),
            **self.source.settings(),
            **self.target.settings(),
            'feature_batch': self.source.batch,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The plan of a video: sizes and labels, which are fixed before its frames are read.

    Attributes:
      sizes: of its frames, the network's input, the grid of features and its cells.
      values: the ids for which its labels stand, `[l]`.
      num_labels: L, the number of labels with which it is computed.
    """

    sizes: Sizes
    values: np.ndarray
    num_labels: int


def plan_video(
    first: np.ndarray,
    video: Any,
    labeller: Labeller,
    later: Mapping[int, np.ndarray] = types.MappingProxyType({}),
) -> Plan:
    """Makes the plan of a video.

    Args:
      first: the annotation of the first frame, as the target takes it.
      video: as a `FeatureSource` takes it: name, size and num_frames.
      labeller: labels the video.
      later: by the number of a later frame, the ids of the objects that appear in it.

    Raises:
      DataError: the source has no features of this video.
    """
    sizes = labeller.source.sizes(video)
    values = labeller.target.values(first, sizes.seen)
    for ids in later.values():
        values = np.union1d(values, labeller.target.values(ids, sizes.seen)).astype(values.dtype)
    return Plan(sizes, values, labeller.target.num_labels(values))


def keeping(propagation: Propagation, count: int) -> Propagation:
    """Makes the method whose memory also keeps so many later frames, as it keeps frame 0.

    If it does not keep frame 0, it stays as it is.
    """
    memory = propagation.memory
    if not count or not memory.keep_first:
        return propagation
    memory = dataclasses.replace(memory, num_given=count)
    return dataclasses.replace(propagation, memory=memory)


def open_for_labels(
    video: Any, frames: Iterator[np.ndarray], labeller: Labeller
) -> tuple[OpenedVideo, Iterator[np.ndarray] | None]:
    """Opens a video, and its frames a second time where the target needs them.

    Args:
      video, frames: as `FeatureSource.open` takes them. No frame is read twice.
      labeller: labels the video.

    Returns:
      The features of the video, and an iterator over the frames of the same arrays, or None. Ask
      for an array before its frame.

    Raises:
      DataError: the source has no features of this video.
      ValueError: the target needs frames, but features of the source stand for several.
    """
    if not labeller.target.needs_frame:
        return labeller.source.open(video, frames), None
    frames, shown = itertools.tee(frames)
    opened = labeller.source.open(video, frames)
    if opened.spans is not None:
        raise ValueError(
            f'{video.name}: a feature map of {labeller.source.description["name"]} stands for '
            "several frames, but labels.refine='guided' needs one for each: say "
            '--config.labels.refine=none'
        )

    def checked():
        for frame in shown:
            check_frame(frame, video.size)
            yield frame

    return opened, checked()


def start_video(
    name: str,
    first: np.ndarray,
    plan: Plan,
    labeller: Labeller,
    variables: Mapping[str, Any] | None = None,
    later: Mapping[int, np.ndarray] = types.MappingProxyType({}),
) -> Video:
    """Makes soft labels of the first frame, as a `Stream` takes them.

    Args:
      name: of the video, for messages.
      first: the annotation of the first frame.
      plan: of the video.
      labeller: labels the video.
      variables: of the network, in place of its own; None takes its own.
      later: by the number of a later frame, the ids of the objects that appear in it.
    """
    target, values, num_labels = labeller.target, plan.values, plan.num_labels
    padded = np.zeros(num_labels, np.int32)
    padded[: values.size] = values

    def take(annotation):
        soft = np.zeros((*plan.sizes.grid, num_labels), np.float32)
        soft[..., : values.size] = target.encode(annotation, values, plan.sizes)
        return target.given(annotation, soft, padded, plan.sizes), soft

    given, soft = take(first)
    entry, ids = None, target.ids(first, plan.sizes.seen)
    if ids is not None:
        rule = labeller.propagation.rule
        entry = rule.init_from_ids(ids, values, plan.sizes.grid, num_labels)
    return Video(name, given, soft, padded, entry, variables, later, take)
