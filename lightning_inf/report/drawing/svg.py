"""Elements of SVG as escaped markup."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from lightning_inf.report.format import shown


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Make an element; attributes and children are escaped, and what is None is left out.

    Args:
        tag: Its name.
        *children: Text, or markup made here.
        **attributes: ``_`` stands for ``-``, and a trailing one is dropped (``class_``). Numbers are rounded to hundredths.

    Example:
        >>> str(element("rect", x=1.0, width=2.345, class_="bar"))
        '<rect x="1" width="2.35" class="bar"/>'
        >>> str(element("text", "a < b"))
        '<text>a &lt; b</text>'
    """
    # Plain strings, of which each part is escaped once: Markup's own `format` and `join` parse and escape over again,
    # which took half of the time that a page takes.
    said = "".join(
        f' {_escaped(name.rstrip("_").replace("_", "-"))}="{_escaped(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    tag = _escaped(tag)
    if not children:
        return Markup(f"<{tag}{said}/>")
    return Markup(f"<{tag}{said}>{''.join(_escaped(shown(child)) for child in children)}</{tag}>")


def picture(
    key: str, width: float, height: float, title: str, description: str, parts: Iterable[Markup], class_: str = ""
) -> Markup:
    """Put parts into a picture that scales with the page and that a screen reader can name.

    Args:
        key: Unique on the page; ids are made of it.
        width: Of the drawing's own coordinates.
        height: Of the same.
        title: What it is.
        description: What it shows, in a sentence or two.
        parts: What is drawn, in order.
        class_: For the style.
    """
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        class_=f"picture {class_}".strip(),
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def _escaped(value: object) -> str:
    """Escape what is not markup already."""
    return str(escape(value))


def _value(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return shown(value)
