"""Convert formulas in TeX to MathML for browsers, or to pictures for WeasyPrint.

This is the only module that imports math_core and ziamath. A formula that cannot be converted is shown as its source.
Equations get no numbers, as in JupyterLab.
"""

import base64
import html
import re
from functools import cache
from xml.etree import ElementTree as ET

import math_core

_DISPLAYED = ("$$", r"\[", r"\begin")
_FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<tex_block>.+?)(?<!\\)\$\$"
    r"|\\\[(?P<latex_block>.+?)\\\]"
    r"|(?<!\\)\$(?P<tex_inline>[^$]+?)(?<!\\)\$"
    r"|\\\((?P<latex_inline>.+?)\\\)"
    r"|\\begin\{(?P<name>[a-z]+\*?)\}.+?\\end\{(?P=name)\}",
    re.DOTALL,
)
_SIZE = 16.0
"""Font size of pictures; they are scaled with the text around them."""
_NUMBERED = re.compile(r"\\(begin|end)\{(equation|align|gather|multline|alignat|flalign)\}")


@cache
def _converter() -> "math_core.LatexToMathML":
    return math_core.LatexToMathML(fancy_error=False)


def formula(source: str, *, displayed: bool, written: str, mathml: bool = True) -> str:
    """Return a formula as MathML, or `written`, its source with delimiters, if it cannot be converted.

    Without `mathml` the result is a picture: WeasyPrint would print MathML as a row of letters.
    """
    try:
        made = _converter().convert_with_local_state(_NUMBERED.sub(r"\\\1{\2*}", source), displaystyle=displayed)
    except math_core.LatexError:
        return f'<code class="tex">{html.escape(written)}</code>'
    shown = made if mathml else _picture(made, written)
    return f'<div class="formula">{shown}</div>' if displayed else str(shown)


def _picture(mathml: str, written: str) -> str:
    """Return MathML as a picture on the baseline of the text around it, or the source if it cannot be drawn."""
    import ziamath

    text = html.escape(written)
    try:
        drawn = ziamath.Math(ET.fromstring(mathml), size=_SIZE, margin=0.0)  # noqa: S314  (math_core wrote it)
        svg = base64.b64encode(drawn.svg().encode()).decode()
        (width, height), depth = drawn.getsize(), drawn.getyofst()
    except Exception:  # noqa: BLE001  (a formula that ziamath cannot draw raises anything)
        return f'<code class="tex">{text}</code>'
    sizes = {"width": width, "height": height, "vertical-align": depth}
    style = "; ".join(f"{name}: {value / _SIZE:.3f}em" for name, value in sizes.items())
    return f'<img alt="{text}" style="{style}" src="data:image/svg+xml;base64,{svg}">'


def text_with_formulas(text: str, *, mathml: bool = True) -> str:
    """Return an output in LaTeX as HTML: formulas are converted, and the text between them is unchanged."""
    parts, end = [], 0
    for found in _FORMULA.finditer(text):
        parts.append(html.escape(text[end : found.start()]))
        source = next((found[name] for name in _GROUPS if found[name] is not None), found[0])
        parts.append(formula(source, displayed=found[0].startswith(_DISPLAYED), written=found[0], mathml=mathml))
        end = found.end()
    return "".join([*parts, html.escape(text[end:])])


_GROUPS = ("tex_block", "latex_block", "tex_inline", "latex_inline")
