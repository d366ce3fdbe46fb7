"""What lies in a folder is found through links, once; what is hidden or dead is told apart."""

import os
from pathlib import Path

import pytest

from monai_chd.folders import HIDDEN, contents, dead_link


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_linked_folders_are_entered_and_loops_end(tmp_path):
    folder = tmp_path / "cohort"
    touch(folder / "z" / "own.nii")
    touch(tmp_path / "outside.nii")
    touch(tmp_path / "store" / "deep" / "far.nii")
    (folder / "a link").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "back").symlink_to(folder)
    (folder / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    found = contents(folder)
    assert names(found.files, folder) == ["a link/deep/far.nii", "z/own.nii"]
    assert names(found.dead, folder) == ["self"]


def test_a_folder_reached_twice_is_entered_once_and_by_its_own_place(tmp_path):
    touch(tmp_path / "z" / "x.nii")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "zz").symlink_to("a")
    assert names(contents(tmp_path).files, tmp_path) == ["z/x.nii"]


@pytest.mark.parametrize("name", [".Trash-1000", ".git", ".snapshot", *HIDDEN])
def test_hidden_folders_are_named_and_not_entered(tmp_path, name):
    touch(tmp_path / "a" / name / "deep" / "x.nii")
    touch(tmp_path / "y.nii")
    found = contents(tmp_path)
    assert (names(found.files, tmp_path), names(found.hidden, tmp_path)) == (["y.nii"], [f"a/{name}"])
    assert names(contents(tmp_path / "a" / name).files, tmp_path) == [f"a/{name}/deep/x.nii"]  # asked for by name


def test_dead_links_are_told_with_where_they_led(tmp_path):
    link = tmp_path / "x.nii"
    link.symlink_to("gone.nii")
    assert contents(tmp_path).dead == [link]
    assert dead_link(link) == f"{link}: a dead link (to gone.nii); bring back what it leads to, or remove it"
    touch(tmp_path / "gone.nii")
    assert dead_link(link) == "" == dead_link(tmp_path / "nothing")
    assert contents(tmp_path).dead == []


def test_no_folder_and_one_that_cannot_be_opened(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        contents(tmp_path / "nowhere")
    (tmp_path / "closed").mkdir()
    real = os.listdir

    def listdir(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(ValueError, match=r"closed: cannot be opened \(Permission denied\)"):
        contents(tmp_path)
