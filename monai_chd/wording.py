"""How lists, tables and p values are written for people, the same in every message and report.

Estimates with their intervals are written by `metrics.wording`.
"""

from __future__ import annotations

from collections.abc import Sequence


def some_of(names: Sequence[object], most: int = 10) -> str:
    """Names for a message, and how many more there are: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def p_words(p: float) -> str:
    """A p value: `p = 0.042`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def text_table(rows: Sequence[Sequence[object]]) -> str:
    """Rows with columns of one width, two spaces apart: numbers to the right, all else to the left.

    Args:
        rows: the header first; all of one length.

    Returns:
        Lines without a newline at the end.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if _is_number(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def _is_number(cell: str) -> bool:
    return cell.removeprefix("-").replace(".", "", 1).isdigit()
