"""What identifies patients stays in its own folder: the key, the made names, the list of who is who, the series files."""

import csv
import json
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dicom_series import IDENTIFYING, header, hu_volume, write_series

from monai_chd.dicom.private import (
    NAMES,
    Pseudonyms,
    describe_series,
    open_series_file,
    private_folder,
    read_description,
    series_digest,
)
from monai_chd.dicom.series import find_series


@pytest.fixture
def described(tmp_path):
    """A series and its file."""
    write_series(tmp_path / "scans")
    names = Pseudonyms(tmp_path / "out.private")
    (path,) = describe_series(find_series(tmp_path / "scans").series, names)
    return path


def test_it_lies_beside_the_output(tmp_path):
    assert private_folder(tmp_path / "a" / "out") == tmp_path / "a" / "out.private"


def test_names_are_made_with_the_key_and_are_the_same_for_the_same_key(tmp_path):
    one, again, other = (Pseudonyms(tmp_path / name) for name in ("a", "a", "b"))
    assert one.patient("0017") == again.patient(" 17 ")
    assert one.patient("17") != one.patient("18")
    assert one.patient("17") != other.patient("17")
    assert one.series("x", "y") != one.series("xy", "")
    assert "17" not in one.patient("17").partition("-")[0]


def test_a_patient_without_an_id_is_named_by_the_study_or_the_folder(tmp_path):
    names = Pseudonyms(tmp_path / "a")
    kinds = [names.patient(*what).partition("-")[0] for what in [("7",), ("", "1.2"), ("", "", "/x")]]
    assert kinds == ["patient", "study", "folder"]
    with pytest.raises(ValueError, match="nothing to name"):
        names.patient("")


def test_only_the_owner_can_look_into_it(described, tmp_path):
    for path in [tmp_path / "out.private", *(tmp_path / "out.private").rglob("*")]:
        if ".lock" not in path.name:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("text", ["", "abc", "z" * 64])
def test_a_key_that_is_none_is_refused(tmp_path, text):
    Pseudonyms(tmp_path / "a")
    (tmp_path / "a" / "key").write_text(text)
    with pytest.raises(ValueError, match="key: expected 64 hexadecimal digits; bring the key back"):
        Pseudonyms(tmp_path / "a")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"what identifies patients cannot be kept there \(Not a directory\)"):
        Pseudonyms(tmp_path / "file" / "a")


def test_the_list_says_who_is_who_and_grows(described, tmp_path):
    write_series(tmp_path / "more", shared=header("another"))
    names = Pseudonyms(tmp_path / "out.private")
    describe_series(find_series(tmp_path / "more").series, names)
    with (tmp_path / "out.private" / NAMES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["patient"] for row in rows} == {"MRN-778812", "another"}
    assert all((tmp_path / "out.private" / row["name"]).is_file() for row in rows)
    assert {row["folder"] for row in rows} == {str(tmp_path / "scans"), str(tmp_path / "more")}


def test_a_series_file_opens_its_volume_under_its_made_name(described):
    volume = open_series_file(described)
    np.testing.assert_array_equal(volume.scaled(volume.read_whole()), hu_volume())
    assert str(volume.path) == f"{described.parent.name}/{described.name}"


def test_a_series_file_holds_no_field_of_a_header_but_paths(tmp_path):
    write_series(tmp_path / "scans")
    (path,) = describe_series(find_series(tmp_path / "scans").series, Pseudonyms(tmp_path / "p"))
    assert not [word for word in IDENTIFYING if word in path.read_text() + path.name + path.parent.name]


def test_the_digest_is_of_the_files_and_not_of_where_they_lie(described, tmp_path):
    (tmp_path / "scans").rename(tmp_path / "moved")
    (other,) = describe_series(find_series(tmp_path / "moved").series, Pseudonyms(tmp_path / "other.private"))
    digest = series_digest(other)
    (tmp_path / "moved").rename(tmp_path / "scans")
    assert series_digest(described) == digest
    write_series(tmp_path / "third", hu_volume(seed=1))
    (third,) = describe_series(find_series(tmp_path / "third").series, Pseudonyms(tmp_path / "other.private"))
    assert series_digest(third) != digest


def test_a_refused_series_says_so_when_it_is_opened(tmp_path):
    write_series(tmp_path / "scans", shear=(0, 0.3, 0))
    (path,) = describe_series(find_series(tmp_path / "scans").series, Pseudonyms(tmp_path / "p"))
    with pytest.raises(ValueError, match=rf"^{path.parent.name}/{path.name}: tilted by"):
        open_series_file(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"format": "another"})])
def test_something_else_is_no_series_file(described, content):
    described.write_text(content)
    with pytest.raises(ValueError, match="not a description of a DICOM series"):
        read_description(described)
    described.unlink()
    with pytest.raises(FileNotFoundError, match="run the command on the folder of DICOM files again"):
        read_description(described)


def test_jobs_that_write_at_once_wait_for_each_other_and_lose_nobody(tmp_path):
    for number in range(4):
        write_series(tmp_path / f"s{number}", hu_volume((3, 8, 6)), shared=header(f"p{number}"))

    def job(number):
        describe_series(find_series(tmp_path / f"s{number}").series, Pseudonyms(tmp_path / "private"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(job, range(4)))
    with (tmp_path / "private" / NAMES).open(newline="") as file:
        assert {row["patient"] for row in csv.DictReader(file)} == {"p0", "p1", "p2", "p3"}
