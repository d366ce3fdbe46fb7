"""What else than disease may tell the classes apart: tables of confounders, tests of association, and what they predict.

Knows patients and their recorded numbers, no voxels. All of it is descriptive: no exit code follows from it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import PermutationMethod, chi2_contingency, kruskal
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from monai_chd.audit.fingerprints import Scan
from monai_chd.audit.records import Record
from monai_chd.identity import patient_key
from monai_chd.metrics.formulas import SIGNIFICANT, wilson_interval
from monai_chd.metrics.wording import format_estimate
from monai_chd.wording import p_words

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

PERMUTATIONS = 2000
LEAST = 3
"""Patients with a known value that a class needs to take part in a test."""

FOLDS = 5
"""Of the cross-validation of what confounders tell; a class needs as many patients."""


def audit_confounders(items: Sequence[Record], scans: Mapping[Path, Scan], classes: Sequence[str]) -> dict[str, Any]:
    """All that is known of the confounders of a datalist.

    Args:
        items: its records.
        scans: what is known of the files, by path.
        classes: names in the order of the labels.

    Returns:
        `class_by_place` (scans of each class in each place); `confounders` (by confounder and class: patients, n with a
        known value, median, min and max, or counts) and `confounders_by_place` (the same by confounder, class and place, a
        place being a fold or part); `association` (a test a confounder, with p and p after Holm); `prediction` (how often
        they alone give the class, and the largest class, with 95 % intervals); `warnings` in words. Plain JSON values.
    """
    rows = _patients(items, scans)
    tests = _associations(rows)
    prediction = _prediction(rows, classes)
    return {
        "class_by_place": _class_by_place(items, classes),
        "confounders": _tables(rows, classes),
        "confounders_by_place": _tables_by_place(items, scans, classes),
        "association": tests,
        "prediction": prediction,
        "warnings": _warnings(tests, prediction),
    }


def _patients(items: Iterable[Record], scans: Mapping[Path, Scan]) -> list[dict[str, Any]]:
    """One row a patient: label and confounders; the first scan's value, where a patient has several scans."""
    rows: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.label is None:
            continue
        row = rows.setdefault(
            patient_key(item.patient) or item.image, {"label": item.label, **dict.fromkeys(CONFOUNDERS)}
        )
        for name, value in confounders_of(item, scans[item.path]).items():
            row[name] = value if row[name] is None else row[name]
    return list(rows.values())


def confounders_of(item: Record, scan: Scan) -> dict[str, Any]:
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


def _class_by_place(items: Sequence[Record], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Scans of each class in each place."""
    places = sorted({item.place for item in items})
    counts = Counter((item.label, item.place) for item in items)
    labels = sorted({item.label for item in items if item.label is not None} | set(range(len(classes))))
    return {_class_name(label, classes): {place: counts[label, place] for place in places} for label in labels}


def _values(rows: Iterable[Mapping[str, Any]], name: str, label: int | None = None) -> list[Any]:
    """Known values of a confounder, of one class or all."""
    return [row[name] for row in rows if row[name] is not None and label in (None, row["label"])]


def _tables(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str], labels: Sequence[int] = ()
) -> dict[str, dict[str, Any]]:
    """Per confounder and class (of `labels`, else those that occur): patients, those with a known value, and their summary."""
    labels = labels or sorted({row["label"] for row in rows})
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


def _tables_by_place(
    items: Sequence[Record], scans: Mapping[Path, Scan], classes: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The tables of each place apart; a patient in two places, which is leakage, counts in both."""
    labels = sorted({item.label for item in items if item.label is not None})
    table: dict[str, dict[str, dict[str, Any]]] = {
        name: {_class_name(label, classes): {} for label in labels} for name in CONFOUNDERS
    }
    for place in sorted({item.place for item in items}):
        rows = _patients((item for item in items if item.place == place), scans)
        for name, cells in _tables(rows, classes, labels).items():
            for class_name, cell in cells.items():
                table[name][class_name][place] = cell
    return table


def _associations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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
    labels = np.array([place for place, (_, group) in enumerate(groups) for _ in group])
    statistic, p = _permuted_chi_square(labels, np.unique(values, return_inverse=True)[1])
    permutations = min(PERMUTATIONS, math.factorial(min(len(values), 10)))
    return result | {"test": f"chi-square, {permutations} permutations", "statistic": statistic, "p": p}


def _permuted_chi_square(labels: NDArray[Any], codes: NDArray[Any]) -> tuple[float, float]:
    """Chi-square of two categories without Yates' correction, and p by permutation.

    p is (1 + permutations that reach it) / (1 + permutations); of six patients, who have but 720 orders, it is exact.
    """
    counts = np.zeros((codes.max() + 1, labels.max() + 1), dtype=int)
    np.add.at(counts, (codes, labels), 1)
    method = PermutationMethod(n_resamples=PERMUTATIONS, rng=np.random.default_rng(0))
    found = chi2_contingency(counts, correction=False, method=method)
    return float(found.statistic), float(found.pvalue)


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
    table, model = predictor(rows, names)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(model, table, labels, cv=folds))


def predictor(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[NDArray[Any], Pipeline]:
    """What a classifier of confounders reads, and the classifier, not yet fitted.

    Args:
        rows: values of confounders, None where unknown.
        names: confounders to use, out of `CONFOUNDERS`.

    Returns:
        A table (N, M) of objects, numbers first; and imputation, scaling, coding and logistic regression in one.
    """
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
    return table, make_pipeline(steps, LogisticRegression(max_iter=5000))


def _as_floats(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _warnings(tests: Iterable[Mapping[str, Any]], prediction: Mapping[str, Any]) -> list[str]:
    """What a reader of results must know, in words."""
    warnings = []
    for test in tests:
        if test["p_holm"] is not None and test["p_holm"] < SIGNIFICANT:
            words, read = CONFOUNDERS[test["confounder"]]
            warnings.append(
                f"{words} differs between classes (n={test['n']} patients, {p_words(test['p_holm'])} after Holm for "
                f"{test['tests']} tests): a model may read {read}, not disease"
            )
    if "skipped" not in prediction and prediction["accuracy"]["low"] > prediction["majority"]["value"]:
        known = ", ".join(CONFOUNDERS[name][0] for name in prediction["confounders"])
        right = format_estimate(prediction["accuracy"], "share")
        warnings.append(
            f"without looking at the heart, {known} give the right class in {right} of patients: a model of the images must beat "
            f"this figure, not chance"
        )
    return warnings
