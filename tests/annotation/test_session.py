"""A session of drawing: what is kept, what a propagation may change, and what is saved."""

import io
import time
import zipfile

import numpy as np
import pytest

from jaxprop.annotation.session import Refused
from jaxprop.data.image_files import read_mask, read_palette, write_mask
from jaxprop.data.sequences import DataError, davis_palette
from tests.annotation.standin import NUM_FRAMES, SIZE, Shift, gated, open_session, square


def finish(session):
    """Waits for a propagation; returns it as the page sees it."""
    session._thread.join(20)
    return session.changes()['job']


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def frame(session, number):
    return session.changes()['frames'][number]


def masks(session):
    return [session.mask(number) for number in range(NUM_FRAMES)]


def test_masks_are_propagated_from_a_frame_to_the_end(tmp_path):
    session = open_session(tmp_path)
    session.draw(1, square())
    session.propagate(3)
    job = finish(session)
    assert (job['is_running'], job['error'], job['done'], job['total']) == (False, '', 3, 3)
    assert [mask is not None for mask in masks(session)] == [False, True, False, True, True, True]
    for number in (1, 3, 4, 5):
        np.testing.assert_array_equal(session.mask(number), square(left=1 + number))
    assert [frame(session, n)['kind'] for n in (1, 3)] == ['drawn', 'found']
    assert frame(session, 4)['confidence'] == {1: 0.6} and frame(session, 4)['ids'] == [1]


def test_a_correction_is_kept_and_used(tmp_path):
    session = open_session(tmp_path)
    session.draw(0, square())
    session.propagate(0)
    finish(session)
    correction = np.maximum(square(left=10), square(id_=7, left=0))
    session.draw(3, correction)
    # It changes the frames up to the drawn masks around it.
    outdated = [frame(session, n)['is_outdated'] for n in range(6)]
    assert outdated == [False, True, True, False, True, True]
    session.propagate(0, 'all')
    job = finish(session)
    assert session._label.calls[-2:] == [([0, 3], 1, 2), ([0, 3], 4, 5)] and job['total'] == 4
    np.testing.assert_array_equal(session.mask(3), correction)
    np.testing.assert_array_equal(session.mask(4), np.roll(correction, 1, axis=1))
    assert not any(frame(session, n)['is_outdated'] for n in range(6))
    # Up to the next drawn mask.
    session.propagate(1, 'next')
    finish(session)
    assert session._label.calls[-1] == ([0, 3], 1, 2)


def test_only_what_is_missing_or_outdated_is_labelled_again(tmp_path):
    session = open_session(tmp_path)
    for number in (1, 3):
        session.draw(number, square())
    session.propagate(0, 'all')
    finish(session)
    assert session._label.calls == [([1, 3], 0, 0), ([1, 3], 2, 2), ([1, 3], 4, 5)]
    np.testing.assert_array_equal(session.mask(0), square(left=1))
    with pytest.raises(Refused, match='up to date'):
        session.propagate(0, 'all')
    session.draw(5, square())
    session.propagate(0, 'all')
    finish(session)
    assert session._label.calls[3:] == [([1, 3, 5], 4, 4)]


def test_a_removed_mask_gives_way_to_the_found_one(tmp_path):
    session = open_session(tmp_path)
    session.draw(0, square())
    session.propagate(0)
    finish(session)
    session.draw(2, square(id_=3))
    session.undraw(2)
    np.testing.assert_array_equal(session.mask(2), square(left=4))
    assert frame(session, 2)['kind'] == 'found' and frame(session, 2)['is_outdated']
    session.undraw(0)
    assert session.mask(0) is None


def test_what_is_drawn_while_it_runs_stays_and_makes_others_outdated(tmp_path):
    label, steps = gated()
    session = open_session(tmp_path, label)
    session.draw(0, square())
    session.propagate(0)
    for _ in range(2):
        steps.put(None)
    wait_for(lambda: session.changes()['job']['number'] == 1)
    session.draw(3, square(id_=2))
    for _ in range(4):
        steps.put(None)
    finish(session)
    np.testing.assert_array_equal(session.mask(3), square(id_=2))
    assert [frame(session, n)['is_outdated'] for n in (1, 2, 4, 5)] == [True] * 4


def test_a_cancelled_propagation_keeps_what_it_has_found(tmp_path):
    label, steps = gated()
    session = open_session(tmp_path, label)
    session.draw(0, square())
    session.propagate(0)
    with pytest.raises(Refused, match='running'):
        session.propagate(0)
    with pytest.raises(Refused, match='running'):
        session.export()
    for _ in range(3):
        steps.put(None)
    wait_for(lambda: session.changes()['job']['number'] == 2)
    session.cancel()
    steps.put(None)
    job = finish(session)
    assert job['is_cancelled'] and label.closed == 1
    assert [mask is not None for mask in masks(session)] == [True] * 3 + [False] * 3


def test_it_can_be_cancelled_before_the_first_frame_is_labelled(tmp_path):
    def reads_all(video, masks, first, last):
        for _ in video.iterate_from(0):
            session.cancel()
        yield from Shift()(video, masks, first, last)

    session = open_session(tmp_path, reads_all)
    session.draw(0, square())
    session.propagate(0)
    job = finish(session)
    assert job['is_cancelled'] and (job['error'], job['done']) == ('', 0)


def test_an_error_is_told_and_the_session_goes_on(tmp_path, capsys):
    label, steps = gated()
    session = open_session(tmp_path, label)
    session.draw(0, square())
    for error, told in (
        (DataError('clip: is damaged'), 'clip: is damaged'),
        (KeyError('x'), 'Key'),
    ):
        steps.put(error)
        session.propagate(0)
        assert told in finish(session)['error']
    assert 'Traceback' in capsys.readouterr().err
    for _ in range(NUM_FRAMES):
        steps.put(None)
    session.propagate(0)
    assert finish(session)['error'] == ''


def test_it_refuses_what_cannot_be_done(tmp_path):
    session = open_session(tmp_path)
    with pytest.raises(Refused, match='Draw one'):
        session.export()
    with pytest.raises(Refused, match='Save'):
        session.zipped()
    with pytest.raises(Refused, match='Draw an object'):
        session.propagate(5)
    session.draw(0, np.zeros(SIZE, np.uint8))
    with pytest.raises(Refused, match='Draw an object'):
        session.propagate(0)
    session.draw(5, square())
    with pytest.raises(Refused, match='no frame'):
        session.propagate(5)
    with pytest.raises(ValueError, match='somewhere'):
        session.propagate(0, 'somewhere')
    with pytest.raises(ValueError, match=r'must be \[12, 20\]'):
        session.draw(0, square().T)
    with pytest.raises(ValueError, match='up to 255'):
        session.draw(0, square(id_=255))


def test_it_goes_on_where_it_was(tmp_path):
    session = open_session(tmp_path)
    session.draw(0, square())
    session.propagate(0)
    finish(session)
    session.draw(3, square(id_=2))
    session.close()

    again = open_session(tmp_path)
    for one, other in zip(masks(session), masks(again)):
        np.testing.assert_array_equal(one, other)
    for number in range(NUM_FRAMES):
        one, other = (frame(s, number) for s in (session, again))
        assert {**one, 'revision': 0} == {**other, 'revision': 0}
    assert not again.notes
    # A mask that another program has put there counts as drawn; other files are named.
    write_mask(tmp_path / 'out/drawn/f5.png', square(id_=9))
    write_mask(tmp_path / 'out/drawn/other.png', square())
    (tmp_path / 'out/drawn/f4.PNG').touch()
    again = open_session(tmp_path)
    assert frame(again, 5)['ids'] == [9]
    assert ['f4.PNG' in again.notes[0], 'other.png' in again.notes[1]] == [True, True]


def test_masks_without_their_confidence_are_outdated(tmp_path):
    session = open_session(tmp_path)
    session.draw(0, square())
    session.propagate(0)
    finish(session)
    (tmp_path / 'out/found.json').unlink()  # As if the program had been killed.
    found = frame(open_session(tmp_path), 2)
    assert found['is_outdated'] and found['ids'] == [1]
    for damaged in ('[', '[]', '{"f1": 3}', '{"f1": {"confidence": {"x": 1}, "is_outdated": 0}}'):
        (tmp_path / 'out/found.json').write_text(damaged)
        with pytest.raises(DataError, match='found.json: is damaged'):
            open_session(tmp_path)


def test_the_confidence_is_written_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr('jaxprop.annotation.session._SECONDS', 0)
    label, steps = gated()
    session = open_session(tmp_path, label)
    session.draw(0, square())
    for _ in range(NUM_FRAMES):
        steps.put(None)
    session.propagate(0)
    finish(session)
    session.propagate(0)
    for _ in range(3):
        steps.put(None)
    wait_for(lambda: session.changes()['job']['done'] == 2)
    # Killed now, the masks of two frames are up to date, and those of three count as outdated.
    again = open_session(tmp_path)
    assert [frame(again, n)['is_outdated'] for n in range(1, 6)] == [False] * 2 + [True] * 3
    assert frame(again, 2)['confidence'] == {1: 0.8}
    session.cancel()
    steps.put(None)
    finish(session)


def test_a_folder_is_of_one_video_and_its_masks_are_whole(tmp_path):
    session = open_session(tmp_path)
    session.draw(0, square())
    (tmp_path / 'clip').rename(tmp_path / 'elsewhere')
    (tmp_path / 'out/annotation.json').write_text('{"video": {"name": "another"}}')
    with pytest.raises(ValueError, match='another'):
        open_session(tmp_path)
    (tmp_path / 'out/annotation.json').write_text('{"video": {"name": "clip"}}')
    write_mask(tmp_path / 'out/drawn/f1.png', square().T)
    with pytest.raises(DataError, match='f1.png: is 20 x 12'):
        open_session(tmp_path)
    (tmp_path / 'out/drawn/f1.png').write_bytes(b'\x89PNG')
    with pytest.raises(DataError, match='f1.png'):
        open_session(tmp_path)


def test_masks_of_all_frames_are_exported(tmp_path):
    session = open_session(tmp_path)
    session.draw(2, square(id_=3))
    session.propagate(2)
    finish(session)
    session.draw(3, square(id_=3))
    said = session.export()
    folder = tmp_path / 'out/masks'
    assert said == {'folder': str(folder), 'frames': 6, 'without': 2, 'outdated': 2}
    names = [f'f{n}.png' for n in range(NUM_FRAMES)]
    assert sorted(path.name for path in folder.iterdir()) == names
    for number, name in enumerate(names):
        expected = session.mask(number)
        expected = np.zeros(SIZE) if expected is None else expected
        np.testing.assert_array_equal(read_mask(folder / name), expected)
        np.testing.assert_array_equal(read_palette(folder / name), davis_palette())
    with zipfile.ZipFile(io.BytesIO(session.zipped())) as archive:
        assert archive.namelist() == names
        assert archive.read('f3.png') == (folder / 'f3.png').read_bytes()
    # Again, unless somebody has worked on them.
    session.draw(0, square())
    assert session.export()['without'] == 1
    write_mask(folder / 'f0.png', square(id_=5))
    with pytest.raises(Refused, match='may hold your work'):
        session.export()
    assert read_mask(folder / 'f0.png').max() == 5


def test_changes_are_told_once(tmp_path):
    session = open_session(tmp_path)
    seen = session.changes()['revision']
    assert session.changes(seen)['frames'] == {}
    session.draw(4, square())
    changes = session.changes(seen)
    assert list(changes['frames']) == [4] and changes['job'] is None
    assert session.changes(changes['revision'])['frames'] == {}


def test_a_propagation_that_cannot_begin_does_not_block_the_next(tmp_path, monkeypatch):
    session = open_session(tmp_path)
    session.draw(0, square())

    def is_full(path, value):
        raise OSError('no space left')

    with monkeypatch.context() as patch:
        patch.setattr('jaxprop.files.write_json', is_full)
        with pytest.raises(OSError, match='no space left'):
            session.propagate(0)
    assert session.changes()['job'] is None
    session.propagate(0)
    assert finish(session)['done'] == 5


def test_a_kill_while_a_mask_is_drawn_leaves_no_found_mask_as_up_to_date(tmp_path, monkeypatch):
    session = open_session(tmp_path)
    session.draw(0, square())
    session.propagate(0)
    finish(session)

    def killed(path, ids):
        write_mask(path, ids)
        raise KeyboardInterrupt

    monkeypatch.setattr('jaxprop.annotation.session.write_mask', killed)
    with pytest.raises(KeyboardInterrupt):
        session.draw(3, square(left=10))
    again = open_session(tmp_path)
    assert [frame(again, n)['is_outdated'] for n in range(6)] == [False, True, True, False] + [
        True
    ] * 2
