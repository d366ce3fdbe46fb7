"""What prepare prints: counts, rule, offsets, voxel sizes, remarks; nothing that the datalist does not hold."""

from monai_chd.cohort.overview import report


def record(patient, label, **more):
    confounders = {"slices": 5, "spacing_mm": None, "scanner": None, "contrast": None, **more.pop("confounders", {})}
    return {
        "image": f"{patient}.nii",
        "patient": patient,
        "label": label,
        "flags": [],
        "fold": 0,
        "confounders": confounders,
        **more,
    }


def told(tmp_path, records, excluded="", **more):
    (tmp_path / "excluded.csv").write_text("patient,image,flags,reason\n" + excluded)
    datalist = {
        "classes": ["Cyanotic", "Non-Cyanotic", "Normal"], "training": records, "test": [], "rule": None, "normal": None, **more,
    }  # fmt: skip
    return report(datalist, tmp_path).splitlines()


def test_offsets_are_a_table_by_class_that_names_patients(tmp_path):
    records = [record(f"a{i}", i % 3, hu_offset=-1024.0) for i in range(9)]
    records += [record("b", 0, hu_offset=0.0), record("cine", 2)]
    lines = told(tmp_path, records)
    start = next(i for i, line in enumerate(lines) if line.startswith("HU offset"))
    assert [line.split() for line in lines[start : start + 4]] == [
        ["HU", "offset", "Cyanotic", "Non-Cyanotic", "Normal", "all", "patients"],
        ["-1024", "3", "3", "3", "9", *["a0,", "a1,", "a2,", "a3,", "a4,", "a5,", "a6,", "a7", "and", "1", "more"]],
        ["+0", "1", "0", "0", "1", "b"],
        ["none", "0", "0", "1", "1", "cine"],
    ]


def test_unknown_spacing_is_voxel_units_and_known_spacing_a_range(tmp_path):
    lines = told(tmp_path, [record("a", 0), record("b", 0)])
    assert any(line.startswith("spacing: 2 scans in voxel units, no millimetres") for line in lines)
    assert not any(" mm " in line for line in lines)
    sizes = [[0.25, 0.25, 0.5], [0.5, 0.75, 0.5]]
    lines = told(tmp_path, [record(str(i), 0, confounders={"spacing_mm": size}) for i, size in enumerate(sizes)])
    assert "spacing: 2 scans, 0.25…0.5 x 0.25…0.75 x 0.5…0.5 mm" in lines
    assert not any("voxel units" in line for line in lines)


def test_remarks_are_gathered_by_subject(tmp_path):
    records = [
        record(str(i), 0, notes=[f"stray label values: {i} voxels", "no contrast: x"][: 1 + i // 2]) for i in range(3)
    ]
    lines = told(tmp_path, records)
    assert "remark: 3 scans, stray label values: 0, 1, 2" in lines
    assert "remark: 1 scans, no contrast: 2" in lines


def test_the_rule_and_what_normal_means_are_said_and_reasons_gathered(tmp_path):
    excluded = "1,a.nii,DORV,undetermined: DORV is\n2,b.nii,,no listed diagnosis: tier C1 (x)\n3,c.nii,,no listed diagnosis: y\n"
    rule = {"name": "strict", "description": "Textbook."}
    lines = told(tmp_path, [record("a", 2)], excluded, rule=rule, normal="confirmed", notes=["odd"])
    assert "rule strict: Textbook." in lines
    assert any(line.startswith("normal confirmed: only those count as normal whom") for line in lines)
    assert {"  2 no listed diagnosis", "  1 undetermined", "warning: odd"} <= set(lines)
    assert lines[-1] == f"datalist: {tmp_path / 'datalist.json'}"
