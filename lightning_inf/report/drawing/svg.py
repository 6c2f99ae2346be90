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
    said = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _value(value))
        for name, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup("<{}{}/>").format(tag, said)
    inside = Markup("").join(escape(shown(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, said, inside)


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


def _value(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return shown(value)
