"""A file is replaced whole or not at all."""

import pytest

from cartoseq.analysis.atomic import replace_atomically, write_text_atomically


def test_the_target_appears_with_its_whole_content(tmp_path):
    target = tmp_path / "folder" / "file.txt"
    write_text_atomically(target, "Körper\n")
    assert target.read_text(encoding="utf-8") == "Körper\n"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail():
        with replace_atomically(target) as temporary:
            temporary.write_text("half of the n")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_fails_while_hdf5_closes_its_file_is_an_error_of_the_disk(tmp_path):
    words = "Can't decrement id ref count (file write failed: time = x, errno = 28, error message = 'No space ...')"
    with pytest.raises(OSError, match="No space left on device") as caught, replace_atomically(tmp_path / "maps.h5"):
        raise RuntimeError(words)
    assert caught.value.errno == 28
    with pytest.raises(RuntimeError, match="something else"), replace_atomically(tmp_path / "maps.h5"):
        raise RuntimeError("something else")
    assert list(tmp_path.iterdir()) == []
