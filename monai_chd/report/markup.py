"""Builds HTML and SVG out of elements, so that no text can become markup by accident.

Knows elements and escaping only; what a page says is `report_html`'s part.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from monai_chd.errors import UserError

VOID = frozenset({"br", "hr", "img", "meta", "link", "col", "input"})
"""HTML elements without an end tag."""

EMPTY_SVG = frozenset({"circle", "line", "path", "polyline", "rect", "use"})
"""SVG elements that are written as `<name …/>` when they hold nothing."""


class Markup(str):
    """Text that is HTML already. Only `element` and `join` make it; all other text is escaped where it is put in."""

    __slots__ = ()


Content = str | int | float | None | Iterable["Content"]
"""What an element may hold: Markup as it is, other text escaped, numbers as written by `str`, lists flattened, None nothing."""


def element(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Write one element.

    Args:
        name: of the element, a literal of the program, never a user's text.
        content: see `Content`.
        attributes: `class_` is `class`, other underscores are hyphens (`aria_label`); None and False leave an attribute
            out, True writes it without a value. Values are escaped.

    Returns:
        The element as Markup.

    Raises:
        UserError: content in an element that cannot have any.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    inside = join(content)
    if name in VOID:
        if inside:
            raise UserError(f"<{name}> takes no content, came {inside[:60]!r}")
        return Markup(f"<{name}{written}>")
    if name in EMPTY_SVG and not inside:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{inside}</{name}>")


def join(content: Content) -> Markup:
    """Escape and concatenate content; see `Content`."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, (str, int, float)):
        return Markup(html.escape(str(content), quote=True))
    return Markup("".join(join(part) for part in content))


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'
