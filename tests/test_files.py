import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest
import torch

from monai_chd.errors import UserError, user_error
from monai_chd.files import escaped, leaving_no_empty_folders, locked, replacing, writable_folder, write_csv, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_finished_block_puts_the_new_file_in_the_place_of_the_old(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old", "not before the block ends"
    assert path.read_text() == "new" and names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("wrote", [True, False])
def test_failed_block_leaves_the_old_file_and_nothing_else(tmp_path, failure, wrote):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(failure), replacing(path) as temporary:
        if wrote:
            temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and names(tmp_path) == ["report.json"]


def test_failed_block_makes_no_file_where_there_was_none(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "new" / "report.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert names(tmp_path / "new") == []


@pytest.mark.parametrize("name", ["a.png", "a.b.nii.gz", "no_suffix", "ä ö.jpg"])
def test_temporary_file_is_hidden_in_the_same_folder_and_keeps_the_suffix(tmp_path, name):
    with replacing(str(tmp_path / name)) as temporary:
        assert temporary.parent == tmp_path and temporary.name.startswith(".") and temporary.name.endswith(name)
        temporary.touch()
    assert names(tmp_path) == [name]


def test_missing_folders_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "c.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old" and names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_folder_that_cannot_be_written_to_is_refused_with_what_stands_in_the_way(tmp_path, below):
    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file" / below
    reason = "Not a directory" if below else "File exists"
    for attempt in (writable_folder, lambda place: replacing(place / "x.txt").__enter__()):
        with pytest.raises(
            ValueError, match=f"cannot write there \\({reason}\\); choose another output folder"
        ) as refused:
            attempt(folder)
        assert str(refused.value).startswith(f"{folder}: ")
        assert user_error(refused.value) is refused.value
    assert (tmp_path / "file").read_text() == "not a folder"


def test_folder_without_permission_is_refused(tmp_path, monkeypatch):
    """The tests may run as root, who may write anywhere."""

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ValueError, match=r"cannot write there \(Permission denied\)"):
        writable_folder(tmp_path)


def test_writable_folder_is_made_and_left_empty(tmp_path):
    for _ in range(2):
        assert writable_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
        assert names(tmp_path / "a" / "b") == []


def test_many_threads_may_write_into_one_folder(tmp_path):
    failures = []

    def write(number):
        try:
            for repeat in range(30):
                with replacing(tmp_path / f"{number}.txt") as temporary:
                    temporary.write_text(str(repeat))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and names(tmp_path) == [f"{number}.txt" for number in range(8)]


def test_a_table_is_written_whole_in_utf8_with_plain_line_ends(tmp_path):
    path = write_csv(tmp_path / "new" / "t.csv", ["name", "n"], [["Müller, A.", 1], ['two\nlines "', ""]])
    assert path.read_bytes() == 'name,n\n"Müller, A.",1\n"two\nlines """,\n'.encode()
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["n"], ([1 / n] for n in (1, 0)))
    assert path.read_bytes().startswith(b"name,n\n") and names(tmp_path / "new") == ["t.csv"]


def test_only_one_at_a_time_works_in_a_locked_folder(tmp_path):
    folder = tmp_path / "new"
    with (
        locked(folder, "training"),
        pytest.raises(UserError, match="another training is at work there; wait for its end, or choose another output"),
        locked(folder, "training"),
    ):
        pass
    assert names(folder) == []
    with locked(folder, "training"):
        pass


def test_where_there_are_no_locks_the_work_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path, "training"):
        assert "cannot be locked (No locks available); let only one training work there" in caplog.text


# names that are no text

NAME = os.fsdecode(b"ct_\xe9.nii.gz")
"""A file name of Latin-1 bytes, as Python holds it."""


def test_a_name_of_other_bytes_is_written_escaped_and_json_reads_it_back_as_it_was(tmp_path):
    assert escaped(NAME) == "ct_\\udce9.nii.gz" and escaped("Müller") == "Müller"
    assert write_csv(tmp_path / "t.csv", ["image"], [[NAME]]).read_text("utf-8") == f"image\n{escaped(NAME)}\n"
    for ascii_only in (True, False):
        path = write_text(tmp_path / "t.json", json.dumps([NAME, "Müller\r\n"], ensure_ascii=ascii_only))
        assert json.loads(path.read_bytes()) == [NAME, "Müller\r\n"]


# what the machine refuses


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EFBIG, "File too large")]
)
@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_a_full_disk_is_one_line_with_the_name_of_the_file_and_leaves_the_old_one(
    tmp_path, monkeypatch, code, words, step
):
    def refuse(*_):
        raise OSError(code, words)

    path = write_text(tmp_path / "report.json", "old")
    if step != "write":
        monkeypatch.setattr(os, {"sync": "fsync", "rename": "replace"}[step], refuse)
    with pytest.raises(UserError) as refused, replacing(path) as temporary:
        temporary.write_text("new")
        if step == "write":
            refuse()
    assert str(refused.value) == (
        f"{path}: cannot be written ({words}); make room there, or choose another output folder; what was finished before is kept"
    )
    assert path.read_text() == "old" and names(tmp_path) == ["report.json"]


def test_a_writer_that_fails_again_when_it_clears_up_is_told_by_its_first_failure(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    words = r"model\.pt: cannot be written \(No space left on device\)"
    with pytest.raises(UserError, match=words), replacing(tmp_path / "model.pt"), full.open("wb") as file:
        torch.save(torch.zeros(100_000), file)


def test_a_file_that_may_not_be_made_is_refused_with_its_folder(tmp_path, monkeypatch):
    """The tests may run as root, who may write anywhere."""

    def refuse(self, *args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(UserError, match=rf"^{tmp_path}: cannot write there \(Permission denied\); choose another"):
        write_text(tmp_path / "report.json", "new")


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_the_folder_after_it(tmp_path, monkeypatch):
    steps = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor):
        steps.append(
            "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"{os.fstat(descriptor).st_size} bytes"
        )
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("renamed"), rename(*paths)))
    monkeypatch.setattr(Path, "touch", lambda self: steps.append("probe"))
    write_text(tmp_path / "report.json", "whole")
    assert steps == ["5 bytes", "renamed", "folder"]
    with replacing(tmp_path / "picture.jpg", sync=False) as temporary:
        temporary.write_text("quick")
    assert steps == ["5 bytes", "renamed", "folder", "renamed"]


# failed work


def test_failed_work_leaves_no_empty_folder_of_its_own_and_nothing_else_is_touched(tmp_path):
    (tmp_path / "before" / "empty").mkdir(parents=True)
    for folder in (tmp_path / "new" / "out", tmp_path / "before"):
        with pytest.raises(KeyboardInterrupt), leaving_no_empty_folders(folder):
            (folder / "models" / "deep").mkdir(parents=True)
            (folder / "cache").mkdir()
            (folder / "cache" / "kept").touch()
            raise KeyboardInterrupt
    with pytest.raises(UserError), leaving_no_empty_folders(tmp_path / "other" / "out"):
        (tmp_path / "other" / "out" / "models").mkdir(parents=True)
        raise UserError("x")
    with leaving_no_empty_folders(tmp_path / "done"):
        (tmp_path / "done").mkdir()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        *("before", "before/cache", "before/cache/kept", "before/empty", "done"),
        *("new", "new/out", "new/out/cache", "new/out/cache/kept"),
    ]
