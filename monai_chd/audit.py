"""Audits a datalist: scans or patients in two places, and whether something other than disease tells the classes apart.

Owns which pair is leakage, the tables of confounders and their tests, and the report. How alike two scans are is
`fingerprints`' part. A datalist is read leniently here: what `datalist.read_datalist` refuses is what an audit is for.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, kruskal
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from monai_chd.datalist import PARTS
from monai_chd.files import replacing
from monai_chd.fingerprints import Likeness, Scan, compare_all, scan_files, score_limit
from monai_chd.labels import CLASSES
from monai_chd.metrics import wilson_interval

NUMBERS = {
    "slices": ("slice count", "age or body size"),
    "in_plane_mm": ("pixel size", "body size or the scan protocol"),
    "slice_mm": ("slice distance", "the scan protocol"),
    "age_years": ("age", "age"),
}
CATEGORIES = {
    "scanner": ("scanner", "the scanner or hospital"),
    "contrast": ("use of contrast", "how the scan was made"),
}
CONFOUNDERS = {**NUMBERS, **CATEGORIES}
"""Each confounder in words, and what a model may read from it instead of disease."""

CONTRAST_SHARE = 0.10
"""Share of body voxels (above -300 HU) above 180 HU from which a scan counts as contrast-enhanced, where the datalist does
not say. Two real cardiac CT angiographies have 0.25 and 0.31, phantoms 0.17 to 0.29; a chest 0.08, an abdomen 0.02."""

SIGNIFICANT = 0.05
"""Holm-adjusted p below which the report warns."""

PERMUTATIONS = 2000
LEAST = 3
"""Patients with a known value that a class needs to take part in a test."""

SHOWN = 20
"""Findings of one sort that the text lists; the JSON has all."""

FOLDS = 5
"""Of the cross-validation of what confounders tell; a class needs as many patients."""

COPIES = ("same bytes", "near duplicate")
UNREAD = "cannot tell whether it is a copy of another"


@dataclass(frozen=True)
class Item:
    """One record of a datalist, as far as it can be read; `cohort` is the name of the second datalist, "" for the first."""

    cohort: str
    image: str
    path: Path
    patient: str
    place: str
    label: int | None
    sha256: str
    hu_offset: float | None
    confounders: Mapping[str, Any]


def audit(
    datalist: str | Path,
    *,
    dataset_dir: str | Path | None = None,
    against: str | Path | None = None,
    processes: int = 2,
    progress: bool = True,
) -> dict[str, Any]:
    """Compare all scans and patients of a datalist, and test what could stand in for disease.

    Args:
        datalist: file to audit; need not pass `read_datalist`.
        dataset_dir: folder the images are in; None: the datalist's own `root`.
        against: second datalist whose scans and patients must not be among the first's, as an external test set's.
        processes: scans read, and pairs compared, at once.
        progress: show bars.

    Returns:
        What was compared, `leakage`, `notes` (copies within one place), `problems` (files unread or changed), tables,
        tests and warnings; plain JSON values.

    Raises:
        FileNotFoundError: no such datalist.
        ValueError: not a datalist at all, or fewer than one process.
    """
    if processes < 1:
        raise ValueError(f"processes: expected 1 or more, came {processes}")
    started = time.perf_counter()
    items, classes, problems = _read(Path(datalist), dataset_dir, "")
    other: list[Item] = []
    if against is not None:
        other, _, more = _read(Path(against), None, str(against))
        problems += more
    everything = items + other
    paths = list(dict.fromkeys(item.path for item in everything))
    offsets = {item.path: item.hu_offset for item in reversed(everything)}
    scans = dict(
        zip(paths, scan_files([(p, offsets[p]) for p in paths], processes=processes, progress=progress), strict=True)
    )
    problems += _file_problems(everything, scans)
    alike, sample = _alike(everything, scans, processes, progress)
    limit = score_limit(sample)
    findings = _findings(everything, scans, [one for one in alike if (one.score or 0) >= limit])
    patients = _patients(items, scans)
    tests = _associations(patients, classes)
    prediction = _prediction(patients, classes)
    scored = sorted((one for one in alike if one.score is not None), key=lambda one: -(one.score or 0))
    return {
        "datalist": str(datalist),
        "against": None if against is None else str(against),
        "compared": _compared(items, other, scans, len(alike)),
        "near_duplicate_score": {
            "limit": round(limit, 4),
            "pairs_sampled": len(sample),
            "median_of_sample": round(float(np.median(sample)), 4) if sample else None,
            "closest": [_closest(everything, one) for one in scored if (one.score or 0) < limit][:3],
        },
        "leakage": [finding for finding in findings if finding["leakage"]],
        "notes": [finding for finding in findings if not finding["leakage"]],
        "problems": problems,
        "class_by_place": _class_by_place(items, classes),
        "confounders": _tables(patients, classes),
        "association": tests,
        "prediction": prediction,
        "warnings": _warnings(tests, prediction),
        "seconds": round(time.perf_counter() - started, 1),
    }


def has_leakage(result: Mapping[str, Any]) -> bool:
    """Whether a scan or patient stands in two places."""
    return bool(result["leakage"])


def write_audit(result: Mapping[str, Any], path: str | Path) -> None:
    """Write the result of `audit` as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")


def _read(
    path: Path, dataset_dir: str | Path | None, cohort: str
) -> tuple[list[Item], list[str], list[dict[str, str]]]:
    """Records of a datalist, its classes, and what is wrong with single records."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such datalist; make one with `monai-chd prepare COHORT --out WORK`")
    try:
        content = json.loads(path.read_text())
        parts = {part: list(content.get(part, [])) for part in PARTS}
        root = path.parent / str(content.get("root", "")) if dataset_dir is None else Path(dataset_dir)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a datalist ({error}); expected JSON with {' and '.join(PARTS)}") from error
    if not any(parts.values()):
        raise ValueError(f"{path}: no case in it; expected lists named {' and '.join(PARTS)}")
    items, problems = [], []
    for part, records in parts.items():
        for number, record in enumerate(records):
            image = record.get("image") if isinstance(record, dict) else None
            if not isinstance(image, str):
                name = f"{part} record {number}"
                problems.append({"image": name, "place": part, "problem": f"{name} of {path} names no image"})
                continue
            items.append(_item(record, part, root, cohort))
            if not items[-1].patient:
                text = f"{image}: no patient id, so overlap of patients cannot be seen for it"
                problems.append({"image": image, "place": items[-1].place, "problem": text})
    classes = content.get("classes")
    return items, [str(name) for name in classes] if isinstance(classes, list) else list(CLASSES), problems


def _item(record: Mapping[str, Any], part: str, root: Path, cohort: str) -> Item:
    fold, label, offset = record.get("fold"), record.get("label"), record.get("hu_offset")
    place = "the test part" if part == "test" else "training, no fold" if fold is None else f"fold {fold}"
    patient, confounders = record.get("patient"), record.get("confounders")
    return Item(
        cohort=cohort,
        image=record["image"],
        path=(root / record["image"]).resolve(),
        patient="" if patient is None else str(patient).strip(),
        place=place,
        label=label if isinstance(label, int) else None,
        sha256=str(record.get("sha256") or ""),
        hu_offset=float(offset) if isinstance(offset, (int, float)) else None,
        confounders=confounders if isinstance(confounders, dict) else {},
    )


def _file_problems(items: Sequence[Item], scans: Mapping[Path, Scan]) -> list[dict[str, str]]:
    """Files unread, or other than when the datalist was made."""
    problems = []
    for item in items:
        scan, where = scans[item.path], f"{item.cohort}: {item.place}" if item.cohort else item.place
        if scan.problem:
            problems.append({"image": item.image, "place": where, "problem": f"{scan.problem}; {UNREAD}"})
        elif scan.cells is None:
            problems.append({"image": item.image, "place": where, "problem": f"{item.path}: shows nothing; {UNREAD}"})
        if item.sha256 and scan.sha256 and scan.sha256 != item.sha256:
            text = f"{item.path}: the file has changed since the datalist was made (other sha256); prepare again"
            problems.append({"image": item.image, "place": where, "problem": text})
    return problems


def _digest(item: Item, scans: Mapping[Path, Scan]) -> str:
    """What the file's bytes are now, or were when the datalist was made, if it is gone."""
    return scans[item.path].sha256 or item.sha256


def _alike(
    items: Sequence[Item], scans: Mapping[Path, Scan], processes: int, progress: bool
) -> tuple[list[Likeness], list[float]]:
    """Likeness of all pairs of different files with something to compare, indices into `items`; and of a sample."""
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if scans[item.path].cells is not None:
            first.setdefault(_digest(item, scans), index)
    shown = list(first.values())
    pairs = [
        (a, b) for b in range(len(shown)) for a in range(b) if not (items[shown[a]].cohort and items[shown[b]].cohort)
    ]
    found, sample = compare_all(
        [scans[items[index].path] for index in shown], pairs, processes=processes, progress=progress
    )
    return [one._replace(first=shown[one.first], second=shown[one.second]) for one in found], sample


def _patient_key(patient: str) -> str:
    """An id as compared: 07 and 7 are one patient."""
    return str(int(patient)) if patient.isdecimal() else patient


def _findings(items: Sequence[Item], scans: Mapping[Path, Scan], copies: Iterable[Likeness]) -> list[dict[str, Any]]:
    """Patients in two places and pairs of copies, worst first; `leakage` is false within one place of one datalist."""
    same: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        same[_digest(item, scans) or str(item.path)].append(index)
    pairs: list[dict[str, Any]] = []
    for group in same.values():
        pairs += [_pair(items, a, b, "same bytes") for b in group for a in group if a < b]
    for one in copies:
        # a file stands once in the comparison, but perhaps several times in the datalist
        for a in same[_digest(items[one.first], scans)]:
            for b in same[_digest(items[one.second], scans)]:
                found = _pair(items, min(a, b), max(a, b), "near duplicate")
                pairs.append(found | {"score": round(one.score or 0, 4), "orientation": one.orientation})
    pairs = [pair for pair in pairs if pair["kind"]]
    shared = [map(_patient_key, pair["patients"]) for pair in pairs if pair["kind"] not in (*COPIES, "")]
    told = {left for left, right in shared if left == right}
    findings = _patient_findings(items, told) + pairs
    return sorted(findings, key=lambda finding: not finding["leakage"])


def _pair(items: Sequence[Item], a: int, b: int, by: str) -> dict[str, Any]:
    """A finding about two records; its kind is empty when both are of the second datalist, which is not audited."""
    left, right = items[a], items[b]
    kind = by
    if left.cohort != right.cohort:
        kind = f"shared with {left.cohort or right.cohort}"
    elif left.cohort:
        kind = ""
    return _finding(kind, by, (left, right), left.place != right.place or left.cohort != right.cohort)


def _patient_findings(items: Sequence[Item], told: Container[str]) -> list[dict[str, Any]]:
    """Patients in two places of the first datalist, or in both datalists, unless a copy of a scan tells that already."""
    by_patient: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.patient:
            by_patient[_patient_key(item.patient)].append(item)
    findings = []
    for key, own in by_patient.items():
        first = [item for item in own if not item.cohort]
        if len({item.place for item in first}) > 1:
            findings.append(_finding("patient in two places", "patient id", first, True))
        others = {item.cohort for item in own if item.cohort}
        if first and others and key not in told:
            findings.append(_finding(f"shared with {others.pop()}", "patient id", own, True))
    return findings


def _finding(kind: str, by: str, items: Sequence[Item], leakage: bool) -> dict[str, Any]:
    return {
        "kind": kind,
        "by": by,
        "leakage": leakage,
        "images": [item.image for item in items],
        "places": [f"{item.place} of {item.cohort}" if item.cohort else item.place for item in items],
        "patients": [item.patient for item in items],
        "labels": [item.label for item in items],
        "score": None,
        "orientation": None,
    }


def _closest(items: Sequence[Item], one: Likeness) -> dict[str, Any]:
    """A pair that is most alike without being a copy, for the reader to look at."""
    left, right = items[one.first], items[one.second]
    return {"images": [left.image, right.image], "score": round(one.score or 0, 4), "orientation": one.orientation}


def _compared(items: Sequence[Item], other: Sequence[Item], scans: Mapping[Path, Scan], pairs: int) -> dict[str, Any]:
    """How much was looked at."""
    return {
        "scans": len(items),
        "patients": len({_patient_key(item.patient) for item in items if item.patient}),
        "places": dict(sorted(Counter(item.place for item in items).items())),
        "against_scans": len(other),
        "files_read": sum(not scan.problem for scan in scans.values()),
        "files": len(scans),
        "pairs": pairs,
    }


def _patients(items: Sequence[Item], scans: Mapping[Path, Scan]) -> list[dict[str, Any]]:
    """One row a patient: label and confounders; the first scan's value, where a patient has several scans."""
    rows: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.label is None:
            continue
        row = rows.setdefault(
            _patient_key(item.patient) or item.image, {"label": item.label, **dict.fromkeys(CONFOUNDERS)}
        )
        for name, value in _confounders(item, scans[item.path]).items():
            row[name] = value if row[name] is None else row[name]
    return list(rows.values())


def _confounders(item: Item, scan: Scan) -> dict[str, Any]:
    """Confounders out of the datalist; slices, spacing and contrast out of the file where the datalist lacks the key."""
    given = item.confounders
    spacing = given.get("spacing_mm", scan.spacing_mm)
    spacing = spacing if isinstance(spacing, (list, tuple)) and len(spacing) == 3 else (None, None, None)
    pixel = [value for value in map(_number, spacing[:2]) if value is not None]
    contrast = given.get("contrast")
    if "contrast" not in given and scan.bright is not None:
        contrast = scan.bright >= CONTRAST_SHARE
    slices = given["slices"] if "slices" in given else scan.shape[2] if scan.shape else None
    return {
        "slices": _number(slices),
        "in_plane_mm": sum(pixel) / len(pixel) if pixel else None,
        "slice_mm": _number(spacing[2]),
        "age_years": _number(given.get("age_years")),
        "scanner": str(given["scanner"]).strip() if given.get("scanner") else None,
        "contrast": None if contrast is None else "yes" if contrast else "no",
    }


def _number(value: Any) -> float | None:
    """A finite number, or None: a datalist may have been edited by hand."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _class_by_place(items: Sequence[Item], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Scans of each class in each place."""
    places = sorted({item.place for item in items})
    counts = Counter((item.label, item.place) for item in items)
    labels = sorted({item.label for item in items if item.label is not None} | set(range(len(classes))))
    return {_class_name(label, classes): {place: counts[label, place] for place in places} for label in labels}


def _values(rows: Iterable[Mapping[str, Any]], name: str, label: int | None = None) -> list[Any]:
    """Known values of a confounder, of one class or all."""
    return [row[name] for row in rows if row[name] is not None and label in (None, row["label"])]


def _tables(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per confounder and class: patients, those with a known value, and median, min and max or counts."""
    labels = sorted({row["label"] for row in rows})
    table: dict[str, dict[str, Any]] = {}
    for name in CONFOUNDERS:
        table[name] = {}
        for label in labels:
            known = _values(rows, name, label)
            cell: dict[str, Any] = {"patients": sum(row["label"] == label for row in rows), "n": len(known)}
            if name in CATEGORIES:
                cell["counts"] = dict(sorted(Counter(known).items()))
            elif known:
                cell |= {"median": float(np.median(known)), "min": min(known), "max": max(known)}
            table[name][_class_name(label, classes)] = cell
    return table


def _associations(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One test a confounder of its association with the class; p as such, and adjusted after Holm for their number."""
    tests = [_association(rows, name) for name in CONFOUNDERS]
    done = sorted((test for test in tests if test["p"] is not None), key=lambda test: test["p"])
    highest = 0.0
    for rank, test in enumerate(done):
        highest = max(highest, min(1.0, test["p"] * (len(done) - rank)))
        test["p_holm"], test["tests"] = highest, len(done)
    return tests


def _association(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Kruskal-Wallis for a number; chi-square with p by permutation, so that small counts do no harm, for a category."""
    result: dict[str, Any] = {"confounder": name, "test": None, "statistic": None, "n": 0, "p": None, "p_holm": None}
    groups = [(label, _values(rows, name, label)) for label in sorted({row["label"] for row in rows})]
    groups = [(label, values) for label, values in groups if len(values) >= LEAST]
    values = [value for _, group in groups for value in group]
    result["n"] = len(values)
    if len(groups) < 2:
        known = len(_values(rows, name))
        return result | {"skipped": f"needs {LEAST} patients in two classes; known for {known} of {len(rows)}"}
    if len(set(values)) < 2:
        return result | {"skipped": "does not vary"}
    if name in NUMBERS:
        found = kruskal(*(group for _, group in groups))
        return result | {"test": "Kruskal-Wallis", "statistic": float(found.statistic), "p": float(found.pvalue)}
    labels = np.array([label for label, group in groups for _ in group])
    statistic, p = _permuted_chi_square(labels, np.unique(values, return_inverse=True)[1])
    return result | {"test": f"chi-square, {PERMUTATIONS} permutations", "statistic": statistic, "p": p}


def _permuted_chi_square(labels: NDArray[Any], codes: NDArray[Any]) -> tuple[float, float]:
    """Chi-square of two categories without Yates' correction, and the share of permutations that reach it."""
    columns = np.unique(labels, return_inverse=True)[1]

    def statistic(codes: NDArray[Any]) -> float:
        counts = np.zeros((codes.max() + 1, columns.max() + 1))
        np.add.at(counts, (codes, columns), 1)
        return float(chi2_contingency(counts, correction=False).statistic)

    rng = np.random.default_rng(0)
    observed = statistic(codes)
    reached = sum(statistic(rng.permutation(codes)) >= observed - 1e-9 for _ in range(PERMUTATIONS))
    return observed, (reached + 1) / (PERMUTATIONS + 1)


def _prediction(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """How often the confounders alone give the right class, in 5-fold cross-validation, beside the largest class."""
    counts = Counter(row["label"] for row in rows)
    rows = [row for row in rows if counts[row["label"]] >= FOLDS]
    names = [name for name in CONFOUNDERS if len({row[name] for row in rows}) > 1]
    labels = np.array([row["label"] for row in rows])
    if len(set(labels.tolist())) < 2:
        return {"skipped": f"fewer than two classes have {FOLDS} patients"}
    if not names:
        return {"skipped": "no confounder varies"}
    right = int((_cross_validated(rows, names, labels) == labels).sum())
    label, largest = Counter(labels.tolist()).most_common(1)[0]
    return {
        "n": len(rows),
        "confounders": names,
        "accuracy": _proportion(right, len(rows)),
        "largest_class": _class_name(label, classes),
        "majority": _proportion(largest, len(rows)),
        "method": f"logistic regression, {FOLDS}-fold stratified cross-validation by patient; Wilson 95 % intervals",
    }


def _proportion(count: int, n: int) -> dict[str, float]:
    low, high = wilson_interval(count, n)
    return {"value": count / n, "low": low, "high": high, "n": n}


def _cross_validated(rows: Sequence[Mapping[str, Any]], names: Sequence[str], labels: NDArray[Any]) -> NDArray[Any]:
    """Predicted label of each patient by a model that has not seen it."""
    numbers = [name for name in names if name in NUMBERS]
    others = [name for name in names if name in CATEGORIES]
    columns = [[math.nan if row[n] is None else row[n] for n in numbers] for row in rows]
    words = [["unknown" if row[n] is None else row[n] for n in others] for row in rows]
    table = np.empty((len(rows), len(names)), object)
    table[:, : len(numbers)], table[:, len(numbers) :] = np.array(columns), np.array(words, object)
    # that a value is missing may tell the class as well as the value
    scaled = make_pipeline(
        FunctionTransformer(_as_floats),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    encoded = OneHotEncoder(handle_unknown="ignore")
    at = len(numbers)
    steps = ColumnTransformer([("number", scaled, list(range(at))), ("word", encoded, list(range(at, len(names))))])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return np.asarray(
        cross_val_predict(make_pipeline(steps, LogisticRegression(max_iter=5000)), table, labels, cv=folds)
    )


def _as_floats(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _warnings(tests: Iterable[Mapping[str, Any]], prediction: Mapping[str, Any]) -> list[str]:
    """What a reader of results must know, in words."""
    warnings = []
    for test in tests:
        if test["p_holm"] is not None and test["p_holm"] < SIGNIFICANT:
            words, read = CONFOUNDERS[test["confounder"]]
            warnings.append(
                f"{words} differs between classes (n={test['n']} patients, {_p(test['p_holm'])} after Holm for "
                f"{test['tests']} tests): a model may read {read}, not disease"
            )
    if "skipped" not in prediction and prediction["accuracy"]["low"] > prediction["majority"]["value"]:
        warnings.append(
            f"without looking at the heart, {', '.join(CONFOUNDERS[n][0] for n in prediction['confounders'])} give the right "
            f"class in {_shown(prediction['accuracy'])}: a model of the images must beat this figure, not chance"
        )
    return warnings


def _p(p: float) -> str:
    return "p<0.001" if p < 0.001 else f"p={p:.3f}"


def _shown(share: Mapping[str, float]) -> str:
    return f"{share['value']:.1%} [{share['low']:.1%}-{share['high']:.1%}] of n={share['n']} patients"


def audit_text(result: Mapping[str, Any]) -> str:
    """The result of `audit` as a short plain text."""
    compared = result["compared"]
    places = ", ".join(f"{place} {count}" for place, count in compared["places"].items())
    lines = [f"Audit of {result['datalist']}"]
    lines.append(
        f"compared: {compared['scans']} scans of {compared['patients']} patients in {len(compared['places'])} places ({places})"
    )
    if result["against"]:
        lines.append(f"against: {compared['against_scans']} scans of {result['against']}")
    lines.append(
        f"files read: {compared['files_read']} of {compared['files']}; pairs of scans compared: {compared['pairs']}"
    )
    lines += ["", *_leakage_lines(result), "", *_problem_lines(result)]
    lines += ["CLASS BY PLACE (scans)", *_grid(_place_rows(result["class_by_place"])), ""]
    lines += ["CONFOUNDERS (patients; median [min-max] or counts)", *_grid(_confounder_rows(result["confounders"])), ""]
    lines += _test_lines(result)
    return "\n".join(lines)


def _leakage_lines(result: Mapping[str, Any]) -> list[str]:
    leaks, notes = result["leakage"], result["notes"]
    if leaks:
        lines = [f"LEAKAGE: {len(leaks)} found. Results of this split cannot be trusted."]
        lines += _listed([_finding_line(finding) for finding in leaks])
        lines.append(
            "  what to do: keep one scan of each, keep a patient's scans in one place, draw the split again with"
        )
        lines.append(
            "  `monai-chd prepare` into a new folder, and train again; leave shared cases out of an external test."
        )
    else:
        lines = ["LEAKAGE: none found."]
    if result["compared"]["files_read"] < result["compared"]["files"]:
        lines.append("  not all files could be read (see PROBLEMS): these were not compared by their content")
    if notes:
        lines += [f"NOTES: {len(notes)} copies within one place (no leakage, but the case counts twice)"]
        lines += _listed([_finding_line(finding) for finding in notes])
    return lines


def _finding_line(finding: Mapping[str, Any]) -> str:
    pairs = zip(finding["images"], finding["patients"], finding["places"], strict=True)
    listed = " and ".join(f"{image} (patient {patient or '?'}, {place})" for image, patient, place in pairs)
    how = "" if finding["by"] == finding["kind"] or finding["kind"].startswith("patient") else f", by {finding['by']}"
    if finding["by"] == "patient id" and how:
        how += " alone; do both sets number the same patients?"
    if finding["score"] is not None:
        how += f" (likeness {finding['score']:.3f}, {finding['orientation']})"
    if len(set(finding["labels"])) > 1:
        how += "; with different classes"
    return f"{finding['kind']}{how}: {listed}"


def _listed(lines: Sequence[str]) -> list[str]:
    more = [f"  … and {len(lines) - SHOWN} more in the JSON (--out)"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in lines[:SHOWN]] + more


def _problem_lines(result: Mapping[str, Any]) -> list[str]:
    problems = result["problems"]
    if not problems:
        return []
    return [f"PROBLEMS: {len(problems)}", *_listed([f"{p['problem']} ({p['place']})" for p in problems]), ""]


def _place_rows(table: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    places = list(next(iter(table.values()), {}))
    rows = [
        [name, *(str(count) for count in counts.values()), str(sum(counts.values()))] for name, counts in table.items()
    ]
    return [["class", *places, "all"], *rows]


def _confounder_rows(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    names = list(next(iter(table.values()), {}))
    rows = []
    for confounder, cells in table.items():
        rows.append(
            [
                CONFOUNDERS[confounder][0] + (" (mm)" if confounder.endswith("_mm") else ""),
                *(_cell(cells[n]) for n in names),
            ]
        )
    return [["", *names], *rows]


def _cell(cell: Mapping[str, Any]) -> str:
    if not cell["n"]:
        return f"unknown (n=0 of {cell['patients']})"
    if "counts" in cell:
        text = ", ".join(f"{value} {count}" for value, count in cell["counts"].items())
    else:
        text = f"{cell['median']:.4g} [{cell['min']:.4g}-{cell['max']:.4g}]"
    return f"{text} (n={cell['n']})"


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with columns of one width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _test_lines(result: Mapping[str, Any]) -> list[str]:
    """Tests, prediction and warnings."""
    tests, prediction = result["association"], result["prediction"]
    done = sum(test["p"] is not None for test in tests)
    lines = [f"ASSOCIATION WITH CLASS ({done} tests; descriptive)"]
    for test in tests:
        words = CONFOUNDERS[test["confounder"]][0]
        if test["p"] is None:
            lines.append(f"  {words}: not tested, {test['skipped']}")
        else:
            lines.append(f"  {words}: {test['test']}, n={test['n']}, {_p(test['p'])}, after Holm {_p(test['p_holm'])}")
    if "skipped" in prediction:
        lines.append(f"  class from confounders alone: not tried, {prediction['skipped']}")
    else:
        lines.append(f"  class from confounders alone: right in {_shown(prediction['accuracy'])}")
        lines.append(f"  always {prediction['largest_class']}: right in {_shown(prediction['majority'])}")
    warnings = result["warnings"]
    return [
        *lines,
        "",
        *([f"WARNINGS: {len(warnings)}", *(f"  {text}" for text in warnings)] if warnings else ["WARNINGS: none"]),
    ]
