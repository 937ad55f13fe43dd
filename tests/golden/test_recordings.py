"""The recordings themselves: none disappears unnoticed, the committed ones are the originals."""

import shutil

import numpy as np
import pytest
import recordings
from recordings import BESIDE, COMMITTED, LIST, Recordings, elsewhere, folder_of

LISTED = elsewhere(LIST.read_text())
FILES = {
    f"{folder.name}/{path.name}": path
    for folder in COMMITTED.iterdir()
    for path in folder.iterdir()
}


@pytest.fixture
def share(tmp_path):
    """A share of which two files are there, one of them in part."""
    folder = tmp_path / "tscd"
    folder.mkdir()
    np.savez(folder / "part.npz", here=np.ones(2))
    np.savez(folder / "whole.npz", here=np.ones(2))
    listed = elsewhere("# comment\ntscd/part.npz left_out\ntscd/gone.npz\nacr/other.npz\n")
    return Recordings(folder, listed)


def test_listed_recordings_skip(share):
    for request in (("gone.npz",), ("part.npz", "left_out"), ("gone.npz", "any")):
        with pytest.raises(pytest.skip.Exception, match="plain clone"):
            share(*request)


@pytest.mark.parametrize(
    "request_", [("other.npz",), ("part.npz", "left_out", "here_not"), ("whole.npz", "more")]
)
def test_any_other_absence_fails(share, request_):
    with pytest.raises(pytest.fail.Exception, match="does not list"):
        share(*request_)


def test_a_deleted_file_fails_although_its_left_out_arrays_are_listed(share):
    (share.folder / "part.npz").unlink()
    with pytest.raises(pytest.fail.Exception, match="git checkout"):
        share("part.npz", "left_out")


def test_readers_get_arrays_of_their_own(share):
    share("whole.npz", "here")["here"][:] = 7
    assert share("whole.npz")["here"].tolist() == [1, 1]


def test_a_whole_set_must_be_whole(tmp_path):
    shutil.copytree(COMMITTED, tmp_path / "set")
    name = next(name for name, arrays in LISTED.items() if not arrays)
    method, _, file = name.partition("/")
    with pytest.raises(pytest.skip.Exception):
        recordings.recordings(COMMITTED, method)(file)
    with pytest.raises(pytest.fail.Exception):
        recordings.recordings(tmp_path / "set", method)(file)


def test_the_whole_set_is_taken_where_it_lies_beside_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "BESIDE", tmp_path)
    assert folder_of("auto") == tmp_path
    monkeypatch.setattr(recordings, "BESIDE", tmp_path / "absent")
    assert folder_of("auto") == COMMITTED
    assert folder_of("elsewhere").name == "elsewhere"


def test_the_list_of_absent_recordings_is_true():
    assert FILES
    assert LISTED
    for name, arrays in LISTED.items():
        assert (name in FILES) == bool(arrays), name
        if arrays:
            with np.load(FILES[name]) as file:
                assert not arrays & set(file.files), name


@pytest.mark.skipif(not BESIDE.is_dir(), reason="the whole set does not lie beside the checkout")
def test_committed_recordings_are_the_originals():
    """Array by array; some hold the first items or corner of the original."""
    for name in FILES:
        if not name.endswith(".npz"):
            assert FILES[name].read_bytes() == (BESIDE / name).read_bytes(), name
            continue
        with np.load(FILES[name]) as part, np.load(BESIDE / name) as whole:
            assert set(whole.files) - set(part.files) == LISTED.get(name, set()), name
            for key in part.files:
                original = whole[key][tuple(slice(n) for n in part[key].shape)]
                equal_nan = original.dtype.kind == "f"
                assert np.array_equal(part[key], original, equal_nan=equal_nan), (name, key)
