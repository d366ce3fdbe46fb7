"""Finds the ids of a table in the names of scans: they stand at one place in all names, and what fits at several is doubtful.

What follows for a cohort is `joining`'s part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from monai_chd.identity import patient_key
from monai_chd.nifti import stem

SUBJECT = "sub"
"""What stands before the patient where names are BIDS's (sub-01_ses-2_run-3_ct)."""
NO_SUBJECTS = ("ses", "run")
"""What stands before numbers that are no patients."""
MEND = "say whose it is in a column image of the table, or by the id_pattern of a layout (--cohort FILE)"

Words = tuple[str, ...]
Hits = dict[int, frozenset[str]]
"""Patients (`identity.patient_key`) whose id begins at a word of a name."""


class Reading(NamedTuple):
    """Whose a scan is by its name.

    Attributes:
        patients: `identity.patient_key` of those it may belong to; it is sure when there is one.
        doubt: why there is none or several, "" when nothing is to be said.
    """

    patients: frozenset[str] = frozenset()
    doubt: str = ""


class Place(NamedTuple):
    """Where an id begins in a name: at a word counted from 0, counted from the end from 1, or after the word `after`."""

    start: int = -1
    end: int = 0
    after: str = ""

    def index_in(self, name: Words) -> int:
        """The word of a name that stands there, -1 for none."""
        if self.after:
            index = name.index(self.after) + 1 if self.after in name else -1
        else:
            index = len(name) - self.end if self.end else self.start
        return index if index in _free(name) else -1

    def __str__(self) -> str:
        if self.after:
            return f"the word after {self.after!r}"
        return f"word {self.end} from the end" if self.end else f"word {self.start + 1}"


@cache
def _words(name: str) -> Words:
    """Words of a name, as ids are compared."""
    return tuple(patient_key(word) for word in re.split(r"[-_. ]+", name) if word) or (patient_key(name),)


def mentioned(patient: str, name: str) -> bool:
    """Whether a name holds an id as words in a row (sub-01 in sub-01_ct), wherever it is."""
    words, own = _words(name), _words(patient)
    return any(words[start : start + len(own)] == own for start in range(len(words)))


def read_names(scans: Sequence[Path], patients: Iterable[str]) -> dict[Path, Reading]:
    """Whose each scan is by its name.

    Args:
        scans: all that have to belong to somebody.
        patients: ids of the table.
    """
    ids: dict[Words, frozenset[str]] = {}
    for patient in patients:
        ids[_words(patient)] = ids.get(_words(patient), frozenset()) | {patient_key(patient)}
    names = {scan: _words(stem(scan)) for scan in scans}
    if all(name in ids for name in names.values()):
        return {scan: Reading(ids[name]) for scan, name in names.items()}
    hits = _without_constants(names, {scan: _hits(name, ids) for scan, name in names.items()})
    places = _places(names, hits)
    if not places:
        return dict.fromkeys(scans, Reading())
    chosen = max(places, key=lambda place: (_count(places[place]), len(places[place])))
    rivals = [place for place in places if _is_rival(place, chosen, places, names)]
    shapes = {_shape(own[0]) for own in ids} - {_shape("A")}
    return {scan: _read(name, hits[scan], chosen, rivals, shapes) for scan, name in names.items()}


def _free(name: Words) -> list[int]:
    """Words at which an id may begin."""
    if name[0].lower() == SUBJECT and len(name) > 1:
        return [1]
    return [index for index in range(len(name)) if not index or name[index - 1].lower() not in NO_SUBJECTS]


def _hits(name: Words, ids: Mapping[Words, frozenset[str]]) -> Hits:
    found: Hits = {}
    for index in _free(name):
        # sub-01 in a table is 01 after sub
        before = [(), (name[index - 1],)] if index and name[index - 1].lower() == SUBJECT else [()]
        ends = range(index + 1, len(name) + 1)
        who = [ids[own] for start in before for end in ends if (own := (*start, *name[index:end])) in ids]
        if who:
            found[index] = frozenset().union(*who)
    return found


def _places(names: Mapping[Path, Words], hits: Mapping[Path, Hits]) -> dict[Place, dict[Path, frozenset[str]]]:
    """What each place that holds an id in any name says of the scans."""
    places: dict[Place, dict[Path, frozenset[str]]] = {}
    for scan, found in hits.items():
        name = names[scan]
        for index, who in found.items():
            alike = [Place(start=index), Place(end=len(name) - index)]
            if index and not name[index - 1].isdecimal() and name.index(name[index - 1]) == index - 1:
                alike.insert(0, Place(after=name[index - 1]))
            for place in alike:
                places.setdefault(place, {})[scan] = who
    return places


def _without_constants(names: Mapping[Path, Words], hits: dict[Path, Hits]) -> dict[Path, Hits]:
    """Hits without those at a place that holds one id in all names: it tells nobody from another, unless no place does."""
    constant = [
        place
        for place, found in _places(names, hits).items()
        if 1 < len(names) == len(found) and len(set(found.values())) == 1
    ]
    left = {
        scan: {
            index: who for index, who in own.items() if all(place.index_in(names[scan]) != index for place in constant)
        }
        for scan, own in hits.items()
    }
    return left if any(left.values()) else hits


def _count(found: Mapping[Path, frozenset[str]]) -> int:
    """Of how many patients a place tells."""
    return len(frozenset().union(*found.values()))


def _is_rival(
    place: Place, chosen: Place, places: Mapping[Place, Mapping[Path, frozenset[str]]], names: Mapping[Path, Words]
) -> bool:
    """Whether ids may as well stand at another place, which tells of several patients too.

    A place that finds the same words of the names is the same place described in another way; only when the chosen one is
    counted from the end, where names are less alike, does one counted from the beginning have a say against it.
    """
    same_words = all(place.index_in(names[scan]) == chosen.index_in(names[scan]) for scan in places[place])
    from_the_start = bool(chosen.end and not place.end)
    return (not same_words or from_the_start) and _count(places[place]) >= min(2, _count(places[chosen]))


@cache
def _shape(word: str) -> str:
    """A word with its letters and digits made alike: A9 for P07 and p1."""
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "A", word))


def _read(name: Words, hits: Hits, chosen: Place, rivals: Sequence[Place], shapes: set[str]) -> Reading:
    """Whose a scan is by its name, when ids stand at the chosen place of all names."""
    own = chosen.index_in(name)
    if own not in hits:
        if not hits:
            return Reading()
        there = f"here that is {name[own]}" if own >= 0 else "here there is none"
        return Reading(doubt=f"in most names the id is {chosen}; {there}; {MEND}")
    patients = frozenset().union(*hits.values())
    if len(patients) > 1:
        fits = ", ".join(f"{' and '.join(sorted(who))} at word {index + 1}" for index, who in sorted(hits.items()))
        return Reading(patients, f"ids fit its name at several places ({fits}); {MEND}")
    for rival in rivals:
        index = rival.index_in(name)
        if index >= 0 and index not in hits and _shape(name[index]) in shapes:
            return Reading(
                doubt=f"its name fits patient {min(patients)} by {chosen}, and nobody by {rival} ({name[index]}); {MEND}"
            )
    return Reading(patients)
