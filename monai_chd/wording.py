"""How lists, tables and p values are written for people, the same in every message and report; and the note all outputs carry.

Estimates with their intervals are written by `metrics.wording`.
"""

from __future__ import annotations

from collections.abc import Sequence

NOTE = "Research software, not a medical device."
"""What every output says of itself."""


def synthetic_note(synthetic: int, total: int) -> str:
    """What a reader must know first where scans were made up; empty where none says so."""
    if not synthetic:
        return ""
    which = f"All {total}" if synthetic == total else f"{synthetic} of {total}"
    return f"{which} scans are synthetic (made by a phantom, not of patients): no figure of theirs says anything about patients."


def some_of(names: Sequence[object], most: int = 10) -> str:
    """Names for a message, and how many more there are: `a, b and 3 more`."""
    return _first(names, most, ", ", " ")


def join_faults(faults: Sequence[str], most: int = 10) -> str:
    """Faults, which may hold commas, as one message that stays readable when every row is bad: `a; b; and 3 more`."""
    return _first(faults, most, "; ", "; ")


def _first(texts: Sequence[object], most: int, between: str, before_count: str) -> str:
    more = f"{before_count}and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(map(str, texts[:most])) + more


def p_words(p: float) -> str:
    """A p value: `p = 0.042`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def text_table(rows: Sequence[Sequence[object]]) -> str:
    """Rows with columns of one width, two spaces apart: columns of numbers to the right with their heading, others to the left.

    Args:
        rows: the header first; all of one length. The first column names the rows and stands to the left.

    Returns:
        Lines without a newline at the end.
    """
    columns = zip(*([str(cell) for cell in row] for row in rows), strict=True)
    aligned = [_aligned(column, place) for place, column in enumerate(columns)]
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))


def _aligned(column: Sequence[str], place: int) -> list[str]:
    width, right = max(map(len, column)), place > 0 and all(map(_is_number, column[1:]))
    return [cell.rjust(width) if right else cell.ljust(width) for cell in column]


def _is_number(cell: str) -> bool:
    return cell.lstrip("+-").replace(".", "", 1).isdigit()
