"""Gathers what each section of the report page shows, out of report.json's dict, as plain values for the section's template.

Chooses rows, their names and order, and what chance reaches. Words around them and looks are the templates' part, drawings
`charts`'. A section that the report has nothing for is None or empty: its template names what is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from monai_chd.cohort.overview import NORMAL_MEANS
from monai_chd.metrics.estimates import OVERALL, SHOWN, Estimate
from monai_chd.report.charts import (
    SELECTION,
    Chart,
    distance_chart,
    learning_charts,
    occlusion_bars,
    pr_charts,
    reliability_charts,
    risk_coverage_chart,
    roc_charts,
)
from monai_chd.report.checklists import STATUS, fill_checklists, sources
from monai_chd.report.contact_sheet import TILE, TITLE_WIDTH
from monai_chd.report.model_card import MODES, words_of
from monai_chd.wording import NOTE, synthetic_note

Report = Mapping[str, Any]
"""report.json, read."""

Section = Mapping[str, Any]

TOLD = ("The right class was given", "Always answering")
"""How sentences begin that the lead already says."""
LESS_IS_BETTER = ("log_loss", "brier", "ece")
BY_CLASS = ("recall", "precision", "f1", "auc")
"""Figures of a class, in the order they are shown."""

DIAGNOSES = {
    "ASD": "atrial septal defect",
    "VSD": "ventricular septal defect",
    "AVSD": "atrioventricular septal defect",
    "ToF": "tetralogy of Fallot",
    "TGA": "transposition of the great arteries",
    "DORV": "double outlet right ventricle",
    "CAT": "common arterial trunk",
    "CA": "coarctation of the aorta",
    "AAH": "aortic arch hypoplasia",
    "DAA": "double aortic arch",
    "IAA": "interrupted aortic arch",
    "PA": "pulmonary atresia",
    "APVC": "anomalous pulmonary venous connection",
    "DSVC": "double superior vena cava",
    "PDA": "patent ductus arteriosus",
    "PAS": "pulmonary artery sling",
}
"""ImageCHD's flags in words."""


class Row(NamedTuple):
    """A figure of a table: what chance reaches, where that is known, and whether it is a share that a bar can show."""

    name: str
    estimate: Estimate
    chance: float | None = None
    bar: bool = True


def summary(report: Report) -> Section:
    """What a clinician has to know, in words and three figures."""
    results = report["results"]
    overall, answered = results["all"]["overall"], results.get("answered")
    return {
        "note": NOTE,
        "synthetic": synthetic_note(report["cohort"].get("synthetic", 0), report["cohort"].get("scans", 0)),
        "classes": len(report["cohort"]["classes"]),
        "accuracy": overall["accuracy"],
        "balanced_accuracy": overall["balanced_accuracy"],
        "answered": answered and answered["overall"]["accuracy"],
        "coverage": results.get("coverage"),
        "baseline": results["baseline"],
        "chance": _chance(report),
        "verdict": results["verdict"]["sentence"],
        "sentences": [text for text in results.get("sentences") or () if not text.startswith(TOLD)],
        "controls": report.get("controls") or (),
        "warnings": results.get("warnings") or (),
        "remarks": len(report["cohort"].get("warnings") or ()),
    }


def cohort(report: Report) -> Section:
    """How many patients went in, who was left out and why, the label policy, class by fold counts."""
    facts = report["cohort"]
    rule, counts = facts.get("rule") or {}, facts.get("class_by_fold") or {}
    normal = facts.get("normal") or rule.get("normal")
    known = ("name", "description", "normal", "steps", "schema")
    more = {key: value for key, value in rule.items() if key not in known}
    return {
        "flow": [{"why": "", **step} for step in facts.get("flow") or ()],
        "rule": rule and {"name": rule.get("name", ""), "description": rule.get("description", ""), "more": more},
        "normal": normal,
        "normal_means": NORMAL_MEANS.get(str(normal), ""),
        "class_by_fold": counts,
        "repeats": min(map(len, counts.values()), default=0),
        "warnings": facts.get("warnings") or (),
    }


def design(report: Report) -> Section:
    """How the figures came about, in words, and all settings."""
    facts = report["design"]
    share = facts.get("inner_share")
    plan = {
        "Test folds": facts.get("folds"),
        "Repeats with new folds": facts.get("repeats"),
        "Models fitted": facts.get("fits"),
        "Way of training": MODES.get(str(facts.get("mode")), facts.get("mode")),
        "Inner validation": f"{share:.0%} of each fit's training patients" if isinstance(share, float) else share,
        "Seed": facts.get("seed"),
    }
    return {
        "sentence": facts.get("sentence"),
        "plan": {name: value for name, value in plan.items() if value is not None},
        "settings": facts.get("settings"),
    }


def results(report: Report) -> Section:
    """All figures of all patients and of the answered ones, by class, and their spread."""
    found, classes = report["results"], report["cohort"]["classes"]
    baseline, answered, ensemble = found["baseline"], found.get("answered"), found.get("ensemble")
    guessing = {"balanced_accuracy": 1 / len(classes), "auc_macro": 0.5}
    always = dict.fromkeys(("accuracy", "weighted_recall"), baseline["accuracy"]["value"])
    scored = _figures(found["all"], {**guessing, **always})
    scored["overall"].append(Row(f"Baseline: always {baseline['label']}", baseline["accuracy"]))
    several = found["repeats"] > 1
    spread = {key: [v for v in values if v is not None] for key, values in (found.get("repeat_spread") or {}).items()}
    return {
        "all": scored,
        "answered": answered and _figures(answered, guessing),
        "coverage": found.get("coverage"),
        "repeats": found["repeats"],
        "spread": [(words_of(key), values) for key, values in spread.items() if values and several and key in SHOWN],
        "ensemble": ensemble and {"sentence": "", **ensemble, "overall": shown(ensemble["overall"])},
        "methods": _methods(
            found["methods"], _methods_of(found["all"]) | (_methods_of(answered) if answered else set())
        ),
    }


def confusion(report: Report) -> Section:
    """The confusion matrix: counts and percent of the row."""
    found = report["results"]
    parts = {"all patients": found["all"], "answered patients": found.get("answered")}
    return {
        "classes": report["cohort"]["classes"],
        "counted": f"Patients, mean of {found['repeats']} repeats" if found["repeats"] > 1 else "Patients",
        "matrices": {who: part["confusion_matrix"] for who, part in parts.items() if part},
    }


def curves(report: Report) -> Section:
    """ROC and precision-recall curves of each class against the rest."""
    found, classes = report["results"], report["cohort"]["classes"]
    return {"roc": roc_charts(found, classes), "pr": pr_charts(found, classes), "repeats": found["repeats"]}


def calibration(report: Report) -> Section:
    """Whether a probability of 80% means right in 80%, before and after temperature scaling."""
    found = report["results"]
    reliability = found["curves"]["reliability"]
    return {
        "charts": reliability_charts(found),
        "rows": [
            (f"{words_of(key)}, {when}", reliability[when][key])
            for key in LESS_IS_BETTER
            for when in ("before", "after")
            if reliability.get(when) and key in reliability[when]
        ],
        "methods": _methods(found["methods"], ["ece", "brier"]),
    }


def abstention(report: Report) -> Section:
    """Errors among the answered patients against how many are answered."""
    found = report["results"]
    curve = found["curves"]["risk_coverage"]
    areas = {"aurc": "Area under the curve (AURC)", "augrc": "Generalised (AUGRC)"}
    return {
        "coverage": found["coverage"],
        "charts": [risk_coverage_chart(found)],
        "published": (curve.get("published") or {}).get("sentence"),
        "rows": [(words, curve[key]) for key, words in areas.items() if key in curve],
        "methods": _methods(found["methods"], areas),
    }


def structures(report: Report) -> Section | None:
    """Dice of the structures that the classifier reads, what they cannot show, and what doubting them is worth."""
    found = report.get("structures")
    if not found:
        return None
    curve = found["risk_coverage"]
    return {
        "dice": found["dice"] or {},
        "unseen": [
            {"flag": flag, "diagnosis": DIAGNOSES[flag], **counts} for flag, counts in (found["unseen"] or {}).items()
        ],
        "cases": found["cases"],
        "refused": found["refused"],
        "curve": curve,
        "shown": bool(curve) and (curve["gain"]["low"] or 0) > 0,
        "charts": [distance_chart(curve)] if curve else [],
    }


def lesions(report: Report) -> Section:
    """Share of patients with a diagnosis whose class was right, and how well diagnoses themselves are told."""
    found, told = report["results"].get("per_lesion") or (), report.get("flags")
    shares = {
        "class that the diagnoses make by the rule": "by_flags",
        "most probable class, where both are the same": "agree",
        "most probable class, where they differ": "disagree",
    }
    return {
        "recall": [{**one, "diagnosis": DIAGNOSES.get(one["flag"])} for one in found],
        "told": [{**one, "diagnosis": DIAGNOSES.get(one["flag"])} for one in told["flags"]] if told else [],
        "shares": [(words, told[key]) for words, key in shares.items() if told[key]] if told else [],
        "open": told["open"] if told else 0,
    }


def controls(report: Report) -> Section | None:
    """Runs that must fail, or that show how far simpler things get, beside the model."""
    runs = report.get("controls")
    if not runs:
        return None
    found = report["results"]
    differences = [(run["title"], (run.get("details") or {}).get("difference")) for run in runs]
    return {
        "runs": runs,
        "figures": [
            {"key": key, "model": found["all"]["overall"][key], "chance": share}
            for key, share in _chance(report).items()
        ],
        "differences": [(title, difference) for title, difference in differences if difference],
    }


def comparison(report: Report) -> Section | None:
    """The paired comparison with another cross-validation on the same folds."""
    against = report.get("against")
    if not against:
        return None
    better, differences = against.get("better") or {}, against["differences"]
    used = [*(one["method"] for one in differences.values()), "mcnemar", "corrected_t"]
    return {
        "other": against.get("other", "another run"),
        "patients": against["patients"],
        "sentences": against.get("sentences"),
        "differences": [
            {"key": key, "estimate": one, "less": better.get(key, 1) < 0} for key, one in shown(differences).items()
        ],
        "mcnemar": against.get("mcnemar"),
        "corrected_t": against.get("corrected_t"),
        "methods": _methods(against.get("methods") or {}, used),
    }


def mistakes(report: Report) -> list[Section]:
    """The worst mistakes, with frames and how the probability changes when frames are hidden."""
    return [_mistake(case) for case in report.get("worst_cases") or ()]


def training(report: Report) -> Section | None:
    """Learning curves of all fits."""
    charts: list[Chart] = learning_charts(report.get("training") or ())
    return {"charts": charts, "selection": SELECTION} if charts else None


def audit(report: Report) -> Section | None:
    """What the audit of the datalist found."""
    found = report.get("audit")
    if not found:
        return None
    compared, alone = found.get("compared") or {}, found.get("prediction") or {}
    extent = ("scans", "patients", "files_read", "files", "pairs")
    told = {"method": "not given", "largest_class": None, **alone, "control": _confounder_control(report)}
    return {
        "leaks": [_finding(one) for one in found.get("leakage") or ()],
        "copies": [_finding(one) for one in found.get("notes") or ()],
        "problems": [plain_value(one.get("problem", one)) for one in found.get("problems") or ()],
        "warnings": found.get("warnings") or (),
        "extent": {key.replace("_", " "): compared[key] for key in extent if key in compared},
        "association": [
            {
                "name": str(one["confounder"]).replace("_", " "),
                "test": one.get("test"),
                "skipped": one.get("skipped", ""),
                "n": one["n"],
                "p": one.get("p_holm"),
            }
            for one in found.get("association") or ()
        ],
        "alone": told if alone.get("accuracy") and alone.get("majority") else None,
    }


def provenance(report: Report) -> Section | None:
    """Run time, versions, seeds, hashes, and the command."""
    facts = report.get("provenance")
    if not facts:
        return None
    seconds = {name: _duration(value) for name, value in (facts.get("seconds") or {}).items()}
    texts = {key: facts.get(key) for key in ("command", "processor")}
    return {**texts, "seconds": seconds, **{key: facts.get(key) or {} for key in ("versions", "seeds", "hashes")}}


def checklists(report: Report) -> list[Section]:
    """Which items of CLAIM 2024 and TRIPOD+AI are filled here, and which are the reader's."""
    about = sources()
    return [
        {
            **{"title": "", "wording": "", "source": "", **about.get(name, {})},
            "name": name,
            "counts": [(sum(item["status"] == key for item in items), words) for key, words in STATUS.items()],
            "entries": [_item(item) for item in items],
        }
        for name, items in (report.get("checklists") or fill_checklists(report)).items()
    ]


def plain_value(value: Any) -> str:
    """A value of JSON as a reader writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_value(part) for part in value) or "none"
    return str(value)


def flat(mapping: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Names and values as text, values in values on the same level with their path."""
    found: list[tuple[str, str]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found += flat(value, f"{path}{name} / ")
        else:
            found.append((f"{path}{name}", plain_value(value)))
    return found


def _confounder_control(report: Report) -> Mapping[str, Any] | None:
    """The control that asks what the audit asks, where it was done."""
    done = (run for run in report.get("controls") or () if run["name"] == "confounders" and run["n"])
    return next(done, None)


def shown(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures without those that have another name in the same table."""
    return {key: one for key, one in figures.items() if key in SHOWN or key not in OVERALL}


def _chance(report: Report) -> dict[str, float | None]:
    """What always answering the most frequent class, and guessing, reach."""
    always = report["results"]["baseline"]["accuracy"]["value"]
    return {"accuracy": always, "balanced_accuracy": 1 / len(report["cohort"]["classes"])}


def _row(key: str, estimate: Estimate, chance: float | None) -> Row:
    if key in LESS_IS_BETTER:
        return Row(f"{words_of(key)} (less is better)", estimate, bar=False)
    return Row(words_of(key), estimate, chance)


def _figures(part: Mapping[str, Any], chance: Mapping[str, float | None]) -> dict[str, list[Any]]:
    """Rows of all classes together, and of each."""
    overall = [_row(key, one, chance.get(key)) for key, one in shown(part["overall"]).items()]
    classes = [
        {
            "name": name,
            "support": one["support"],
            "rows": [
                Row(words_of(key) + " (sensitivity)" * (key == "recall"), one[key], 0.5 if key == "auc" else None)
                for key in BY_CLASS
                if key in one
            ],
        }
        for name, one in part["per_class"].items()
    ]
    return {"overall": overall, "classes": classes}


def _methods_of(part: Mapping[str, Any]) -> set[str]:
    by_class = [one[key] for one in part["per_class"].values() for key in BY_CLASS if key in one]
    return {one["method"] for one in (*part["overall"].values(), *by_class)}


def _methods(methods: Mapping[str, str], used: Iterable[str]) -> list[tuple[str, str]]:
    """Names and meanings of the methods that a table uses, in the order of `methods`."""
    present = set(used)
    return [(words_of(key), text) for key, text in methods.items() if key in present]


def _mistake(case: Mapping[str, Any]) -> Section:
    windows, prediction = case.get("occlusion") or (), str(case["prediction"])
    facts = {key: case[key] for key in ("flags", "repeat", "fold", "image") if case.get(key) not in (None, [], "")}
    return {
        "patient": case["patient"],
        "label": case["label"],
        "prediction": prediction,
        "probabilities": case["probabilities"],
        "facts": [f"{name} {plain_value(value)}" for name, value in facts.items()],
        "sheet": case.get("sheet"),
        "windows": len(windows),
        "changes": windows and occlusion_bars(windows, margin=TITLE_WIDTH, tile=TILE, class_name=prediction),
        "most_change": max((abs(window["change"]) for window in windows), default=0.0),
    }


def _finding(one: Mapping[str, Any]) -> str:
    places = zip(one.get("images") or (), one.get("patients") or (), one.get("places") or (), strict=False)
    listed = " and ".join(f"{image} (patient {patient or '?'}, {place})" for image, patient, place in places)
    return f"{one.get('kind', 'copy')}: {listed}"


def _item(item: Mapping[str, Any]) -> Section:
    where, _, todo = str(item["where_or_todo"]).partition(" To add: ")
    anchor = str(item.get("anchor") or "")
    return {**item, "anchor": anchor if re.fullmatch("[a-z]+", anchor) else "", "where": where, "todo": todo}


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return plain_value(seconds)
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
