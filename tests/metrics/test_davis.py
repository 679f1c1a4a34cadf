import json

import numpy as np
import pytest
from PIL import Image

from jaxprop.metrics import davis
from tests.support import shared

EXACT = dict(rtol=0, atol=1e-9)


def read_masks(folder):
    """The values of all masks of a folder, [T, H, W] uint8."""
    images = [np.array(Image.open(path)) for path in sorted(folder.iterdir())]
    # Some grey masks have an alpha channel, which says nothing.
    return np.stack([image[..., 0] if image.ndim == 3 else image for image in images])


def slow_boundary(mask):
    """Finds boundary pixels [N, 2] one by one, by the rules for the inside and the far edges."""
    height, width = mask.shape
    boundary = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            right = mask[y, x + 1] if x + 1 < width else False
            below = mask[y + 1, x] if y + 1 < height else False
            across = mask[y + 1, x + 1] if x + 1 < width and y + 1 < height else False
            if x == width - 1 and y == height - 1:
                pass
            elif y == height - 1:
                boundary[y, x] = mask[y, x] != right
            elif x == width - 1:
                boundary[y, x] = mask[y, x] != below
            else:
                boundary[y, x] = any(mask[y, x] != other for other in (right, below, across))
    return np.argwhere(boundary)


def slow_boundary_accuracy(predicted, true, radius):
    """Computes F from the distances between all pairs of boundary pixels."""
    if not len(predicted) or not len(true):
        return float(len(predicted) == len(true))
    near = ((predicted[:, None] - true[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def random_masks(rng, size):
    """Draws masks of many kinds: blobs, dust, edges at all sides of the image, and empty ones."""
    y, x = np.mgrid[: size[0], : size[1]]
    masks = [np.zeros(size, bool), np.ones(size, bool), rng.random(size) < 0.1]
    masks += [x >= size[1] - 2, y >= size[0] - 1, (x < 3) & (y < 2), (x == size[1] - 1) & (y == 0)]
    masks += [(x == size[1] - 1) & (y == size[0] - 1), x + y == 0]
    for _ in range(8):
        centre, radius = rng.uniform(-2, 22, 2), rng.uniform(1, 8)
        masks.append((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2)
    return np.stack(masks)


def label_maps(num_frames, *objects):
    """Makes ids [num_frames, 6, 10]; an object is a line of 3 pixels in column 0, 4 or 8."""
    ids = np.zeros((num_frames, 6, 10), np.int32)
    for index, object_id in enumerate(objects):
        ids[:, 1:4, 4 * index] = object_id
    return ids


class TestOfficialNumbers:
    def test_osvos(self):
        """J and F of every frame of nine sequences, and their statistics, are the official ones."""
        reference = json.loads(shared('reference', 'davis_metrics_osvos.json').read_text())
        masks = shared('reference', 'osvos')
        truths = shared('data', 'DAVIS') / 'Annotations' / '480p'
        assert len(reference['sequences']) == 9
        for name, expected in reference['sequences'].items():
            prediction = (read_masks(masks / name) > 0).astype(np.uint8)
            truth = read_masks(truths / name)
            result = davis.evaluate_sequence(prediction, truth)
            assert result.object_ids == (1,)
            np.testing.assert_allclose(result.region, [expected['J']], **EXACT)
            np.testing.assert_allclose(result.boundary, [expected['F']], **EXACT)
            np.testing.assert_allclose(
                result.region_statistics, [expected['J_mean_recall_decay']], **EXACT
            )
            np.testing.assert_allclose(
                result.boundary_statistics, [expected['F_mean_recall_decay']], **EXACT
            )

    def test_schoolgirls(self):
        """Of seven objects the prediction loses one to another."""
        reference = json.loads(shared('reference', 'davis_metrics_schoolgirls.json').read_text())
        folder = shared('data', 'DAVIS-multi') / 'Annotations' / '480p' / 'schoolgirls'
        truth = read_masks(folder)
        prediction = np.roll(truth, (-2, 3), axis=(1, 2))
        prediction[30:][prediction[30:] == 3] = 2
        result = davis.evaluate_sequence(prediction, truth)
        assert result.object_ids == (1, 2, 3, 4, 5, 6, 7)
        expected = reference['per_object_mean_recall_decay']
        np.testing.assert_allclose(
            result.region_statistics, [statistics['J'] for statistics in expected], **EXACT
        )
        np.testing.assert_allclose(
            result.boundary_statistics, [statistics['F'] for statistics in expected], **EXACT
        )
        summary = davis.summarize({'schoolgirls': result})
        assert summary['J-Mean'] == pytest.approx(reference['J_mean'], abs=1e-9)
        assert summary['F-Mean'] == pytest.approx(reference['F_mean'], abs=1e-9)
        assert summary['J&F-Mean'] == pytest.approx(
            (reference['J_mean'] + reference['F_mean']) / 2, abs=1e-9
        )


class TestRegionSimilarity:
    def test_by_hand(self):
        truth = np.zeros((4, 4, 5), bool)
        prediction = truth.copy()
        truth[0, :2], prediction[0, 1:3] = True, True  # 5 pixels of 15.
        prediction[1, 0, 0] = True
        truth[2, 0, 0] = True
        values = davis.region_similarity(prediction, truth)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, [5 / 15, 0, 0, 1])

    def test_void_does_not_count(self):
        rng = np.random.default_rng(0)
        prediction, truth, void = rng.random((3, 5, 6, 7)) < 0.5
        kept = [
            davis.region_similarity(p[None, ~v], t[None, ~v])
            for p, t, v in zip(prediction, truth, void)
        ]
        np.testing.assert_array_equal(davis.region_similarity(prediction, truth, void), kept)
        everywhere = np.ones_like(void)
        np.testing.assert_array_equal(davis.region_similarity(prediction, truth, everywhere), 1)


class TestBoundaryAccuracy:
    @pytest.mark.parametrize('size', [(13, 17), (16, 9), (1, 12), (11, 1), (1, 1)])
    @pytest.mark.parametrize('threshold', [0, 0.008, 0.1, 1, 3])
    def test_against_all_pairs_of_pixels(self, size, threshold):
        rng = np.random.default_rng(1)
        predictions, truths = random_masks(rng, size), random_masks(rng, size)
        void = rng.random(size) < 0.15
        radius = threshold if threshold >= 1 else np.ceil(threshold * np.hypot(*size))
        predicted = [slow_boundary(mask) for mask in predictions]
        for truth in truths:
            true = slow_boundary(truth)
            expected = [slow_boundary_accuracy(points, true, radius) for points in predicted]
            repeated = np.broadcast_to(truth, predictions.shape)
            np.testing.assert_allclose(
                davis.boundary_accuracy(predictions, repeated, None, threshold), expected, **EXACT
            )
        expected = [
            slow_boundary_accuracy(slow_boundary(p & ~void), slow_boundary(t & ~void), radius)
            for p, t in zip(predictions, truths)
        ]
        repeated = np.broadcast_to(void, truths.shape)
        np.testing.assert_allclose(
            davis.boundary_accuracy(predictions, truths, repeated, threshold), expected, **EXACT
        )

    def test_memory_layout_does_not_matter(self):
        rng = np.random.default_rng(2)
        prediction, truth = rng.random((2, 3, 20, 14)) < 0.2
        expected = davis.boundary_accuracy(prediction, truth, None, 2)
        transposed = [np.asfortranarray(mask) for mask in (prediction, truth)]
        reversed_ = [mask[:, ::-1, ::-1].copy()[:, ::-1, ::-1] for mask in (prediction, truth)]
        for masks in (transposed, reversed_, (transposed[0], reversed_[1])):
            np.testing.assert_array_equal(davis.boundary_accuracy(*masks, None, 2), expected)

    def test_the_tolerance_grows_with_the_image(self):
        for height, width, reach in ((480, 854, 8), (480, 910, 9), (480, 1152, 10), (480, 640, 7)):
            truth = np.zeros((height, width), bool)
            truth[100:] = True
            assert davis.boundary_accuracy(np.roll(truth, reach, 0) & truth, truth) == 1
            assert davis.boundary_accuracy(np.roll(truth, reach + 1, 0) & truth, truth) < 1

    def test_empty_cases(self):
        empty, full = np.zeros((9, 9), bool), np.ones((9, 9), bool)
        spot = empty.copy()
        spot[4, 4] = True
        assert davis.boundary_accuracy(empty, empty) == 1
        assert davis.boundary_accuracy(empty, spot) == 0
        assert davis.boundary_accuracy(spot, empty) == 0
        assert davis.boundary_accuracy(full, empty) == 1  # The image's edge is no boundary.


@pytest.mark.parametrize('measure', [davis.region_similarity, davis.boundary_accuracy])
class TestBothMeasures:
    def test_one_frame_gives_a_scalar(self, measure):
        prediction, truth = np.random.default_rng(3).random((2, 4, 12, 15)) < 0.3
        values = measure(prediction, truth)
        assert values.shape == (4,) and len(set(values)) == 4
        single = measure(prediction[2], truth[2])
        assert np.ndim(single) == 0 and single.dtype == np.float64 and single == values[2]

    def test_bad_masks(self, measure):
        masks = np.zeros((4, 12, 15), bool)
        with pytest.raises(ValueError, match='prediction is uint8'):
            measure(masks.astype(np.uint8), masks)
        with pytest.raises(ValueError, match=r'prediction is bool \[3, 12, 15\]'):
            measure(masks[:3], masks)
        with pytest.raises(ValueError, match=r'void is bool \[12, 15\]'):
            measure(masks, masks, masks[0])
        with pytest.raises(ValueError, match=r'truth is bool \[1, 4, 12, 15\]'):
            measure(masks[None], masks[None])


@pytest.mark.parametrize('threshold', [-0.1, float('nan'), float('inf')])
def test_bad_bound_threshold(threshold):
    masks = np.zeros((4, 5), bool)
    with pytest.raises(ValueError, match='bound_threshold is'):
        davis.boundary_accuracy(masks, masks, bound_threshold=threshold)


class TestSequenceStatistics:
    @pytest.mark.parametrize(
        'ends',
        [(0, 2, 5, 7, 9), (0, 8, 16, 24, 32), (0, 17, 34, 50, 67), (0, 25, 51, 76, 101)],
    )
    def test_decay_bins(self, ends):
        """The weight of each frame in the decay is found by changing that frame alone."""
        count = ends[-1] + 1
        expected = np.zeros(count)
        expected[: ends[1] + 1] += 1 / (ends[1] + 1)
        expected[ends[3] :] -= 1 / (count - ends[3])
        weights = [davis.sequence_statistics(unit).decay for unit in np.eye(count)]
        np.testing.assert_allclose(weights, expected, **EXACT)

    def test_ends_wrap_in_8_bits(self):
        assert np.isfinite(davis.sequence_statistics(np.arange(256)).decay)
        # Ends 0, 75, 150, 224, 43: the last quarter is empty.
        assert np.isnan(davis.sequence_statistics(np.arange(300)).decay)
        # Ends 0, 175, 94, 12, 187.
        assert davis.sequence_statistics(np.arange(700)).decay == 87.5 - 99.5

    def test_by_hand(self):
        # 0.5 is no success; the quarters are frames 0 to 1 and 2 to 3.
        expected = (0.575, 0.5, 0.55 - 0.6)
        assert davis.sequence_statistics([0.5, 0.6, 0.2, 1.0]) == pytest.approx(expected)

    def test_few_frames(self):
        assert davis.sequence_statistics([0.75]) == (0.75, 1, 0)

    @pytest.mark.parametrize('values', [[], [[0.5, 0.5]], 0.5])
    def test_bad_values(self, values):
        with pytest.raises(ValueError, match='values has the shape'):
            davis.sequence_statistics(values)


class TestEvaluateSequence:
    def test_frames_and_objects_are_apart(self):
        truth = label_maps(12, 3, 1, 7)  # Neither in order nor without gaps.
        prediction = truth.copy()
        prediction[0] = 0  # The first and the last frame are left out of the statistics.
        prediction[-1][prediction[-1] == 7] = 0
        prediction[4][prediction[4] == 3] = 1
        result = davis.evaluate_sequence(prediction, truth)
        assert result.object_ids == (1, 3, 7)
        expected = np.ones((3, 12))
        expected[:, 0] = 0
        expected[0, 4], expected[1, 4], expected[2, -1] = 0.5, 0, 0
        np.testing.assert_array_equal(result.region, expected)
        # A line has 8 boundary pixels, at the left edge of the image 4: precision 8 / 12, recall 1.
        expected[0, 4] = 0.8
        np.testing.assert_allclose(result.boundary, expected, **EXACT)
        means = [statistics.mean for statistics in result.region_statistics]
        np.testing.assert_allclose(means, [9.5 / 10, 9 / 10, 1], **EXACT)
        recalls = [statistics.recall for statistics in result.region_statistics]
        assert recalls == [0.9, 0.9, 1]
        for values, statistics in zip(result.boundary, result.boundary_statistics):
            assert statistics == davis.sequence_statistics(values[1:-1])

    def test_each_object_is_scored_by_its_masks(self):
        rng = np.random.default_rng(4)
        prediction, truth = rng.integers(0, 4, (2, 5, 14, 11))
        result = davis.evaluate_sequence(prediction, truth, bound_threshold=1)
        for row, object_id in enumerate((1, 2, 3)):
            masks = prediction == object_id, truth == object_id
            np.testing.assert_array_equal(result.region[row], davis.region_similarity(*masks))
            expected = davis.boundary_accuracy(*masks, bound_threshold=1)
            np.testing.assert_array_equal(result.boundary[row], expected)

    def test_void_and_late_ids_of_the_truth_are_background(self):
        truth = label_maps(5, 1, 2)
        truth[0, 0, 0] = 255
        truth[2, 1:4, 1] = 255
        truth[3, 1:4, 2] = 9
        clean = label_maps(5, 1, 2)
        prediction = clean.copy()
        prediction[2, 1:4, 1] = prediction[3, 1:4, 2] = 1  # Neither is forgiven.
        result = davis.evaluate_sequence(prediction, truth)
        assert result.object_ids == (1, 2)
        np.testing.assert_array_equal(result.region, [[1, 1, 0.5, 0.5, 1], [1] * 5])
        expected = davis.evaluate_sequence(prediction, clean)
        np.testing.assert_array_equal(result.boundary, expected.boundary)

    def test_given_objects(self):
        truth = label_maps(5, 1, 3)
        result = davis.evaluate_sequence(truth, truth, object_ids=range(1, 4))
        assert result.object_ids == (1, 2, 3)
        np.testing.assert_array_equal(result.region, 1)  # The absent object is found absent.
        prediction = truth.copy()
        prediction[1, 0, 0] = 2
        result = davis.evaluate_sequence(prediction, truth, object_ids=range(1, 4))
        assert result.region[1].tolist() == [1, 0, 1, 1, 1]

    @pytest.mark.parametrize('predicted_value', [1, 255])
    def test_binary_masks(self, predicted_value):
        truth = label_maps(5, 1, 1)
        prediction = np.roll(truth, 1, axis=1)
        expected = davis.evaluate_sequence(prediction, truth)
        result = davis.evaluate_sequence(
            (prediction * predicted_value).astype(np.uint8), (truth * 255).astype(np.uint8)
        )
        assert result.object_ids == (1,)
        np.testing.assert_array_equal(result.region, expected.region)
        np.testing.assert_array_equal(result.boundary, expected.boundary)

    def test_prediction_of_unknown_objects(self):
        truth = label_maps(5, 1, 2)
        prediction = truth.copy()
        prediction[2, 0, 0], prediction[3, 0, 0] = 4, 255
        with pytest.raises(ValueError, match=r'the ids \[4, 255\], but the objects are \(1, 2\)'):
            davis.evaluate_sequence(prediction, truth)
        late = truth.copy()
        late[3, 0, 0] = 5  # An object that is not in the first frame is none, even if it is true.
        with pytest.raises(ValueError, match=r'the ids \[5\]'):
            davis.evaluate_sequence(late, late)
        with pytest.raises(ValueError, match=r'the ids \[2\], but the objects are \(1,\)'):
            davis.evaluate_sequence(truth, truth, object_ids=[1])
        prediction[3, 0, 0] = -4
        with pytest.raises(ValueError, match=r'the ids \[-4, 4\]'):
            davis.evaluate_sequence(prediction, truth)

    def test_bad_arguments(self):
        truth = label_maps(5, 1, 2)
        with pytest.raises(ValueError, match=r'\[4, 6, 10\], truth \[5, 6, 10\]'):
            davis.evaluate_sequence(truth[:4], truth)
        with pytest.raises(ValueError, match='prediction is float64'):
            davis.evaluate_sequence(truth.astype(float), truth)
        with pytest.raises(ValueError, match=r'truth is int32 \[6, 10\]'):
            davis.evaluate_sequence(truth, truth[0])
        with pytest.raises(ValueError, match='there are 2 frames'):
            davis.evaluate_sequence(truth[:2], truth[:2])
        empty = truth.copy()
        empty[0] = 0
        with pytest.raises(ValueError, match='there are no objects'):
            davis.evaluate_sequence(truth, empty)
        for object_ids in ((0, 1, 2), (1, 2, 255), (1, 2, 2), (-1, 1, 2)):
            with pytest.raises(ValueError, match='object_ids is'):
                davis.evaluate_sequence(truth, truth, object_ids)


def test_binary_to_ids():
    masks = np.array([[0, 255], [255, 0]], np.uint8)
    ids = davis.binary_to_ids(masks)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1], [1, 0]]
    for masks in ([[0, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 1], [255, 2]]):
        assert davis.binary_to_ids(masks).tolist() == masks


class TestReports:
    def results(self):
        rng = np.random.default_rng(5)
        results = {}
        for name, num_objects in (('one', 1), ('three', 3)):
            truth = np.maximum(rng.integers(-6, num_objects + 1, (9, 12, 10)), 0)
            prediction = np.where(rng.random(truth.shape) < 0.2, 0, truth)
            results[name] = davis.evaluate_sequence(prediction, truth)
        return results

    def test_table(self):
        results = self.results()
        rows = davis.sequence_table(results)
        assert [(row['sequence'], row['object']) for row in rows] == [
            ('one', 1),
            ('three', 1),
            ('three', 2),
            ('three', 3),
        ]
        third = results['three']
        assert list(rows[2].items())[2:] == [
            ('J-Mean', third.region_statistics[1].mean),
            ('J-Recall', third.region_statistics[1].recall),
            ('J-Decay', third.region_statistics[1].decay),
            ('F-Mean', third.boundary_statistics[1].mean),
            ('F-Recall', third.boundary_statistics[1].recall),
            ('F-Decay', third.boundary_statistics[1].decay),
        ]
        json.dumps(rows)

    def test_all_objects_count_alike(self):
        results = self.results()
        summary = davis.summarize(results)
        region = np.concatenate([result.region_statistics for result in results.values()])
        boundary = np.concatenate([result.boundary_statistics for result in results.values()])
        assert region.shape == boundary.shape == (4, 3)
        names = ('Mean', 'Recall', 'Decay')
        expected = {f'J-{name}': value for name, value in zip(names, region.mean(0))}
        expected |= {f'F-{name}': value for name, value in zip(names, boundary.mean(0))}
        expected['J&F-Mean'] = (region.mean(0)[0] + boundary.mean(0)[0]) / 2
        assert summary == pytest.approx(expected)
        # Not each sequence alike.
        per_sequence = np.mean([np.mean(r.region[:, 1:-1]) for r in results.values()])
        assert summary['J-Mean'] != pytest.approx(per_sequence, abs=1e-4)

    def test_no_results(self):
        with pytest.raises(ValueError, match='results is empty'):
            davis.summarize({})
