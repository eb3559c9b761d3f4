"""Convert formulas in TeX to MathML, which browsers draw without a script; uses math_core.

A formula that cannot be converted is shown as its source. Equations get no numbers, as in JupyterLab.
"""

import html
import re
from functools import cache

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
_NUMBERED = re.compile(r"\\(begin|end)\{(equation|align|gather|multline|alignat|flalign)\}")


@cache
def _converter() -> "math_core.LatexToMathML":
    return math_core.LatexToMathML(fancy_error=False)


def formula(source: str, *, displayed: bool, written: str, mathml: bool = True) -> str:
    """Return a formula as MathML, or `written`, its source with delimiters, if it cannot be converted.

    Without `mathml` the result is the source: WeasyPrint would print MathML as a row of letters.
    """
    if not mathml:
        return f'<code class="tex">{html.escape(written)}</code>'
    try:
        made = _converter().convert_with_local_state(_NUMBERED.sub(r"\\\1{\2*}", source), displaystyle=displayed)
    except math_core.LatexError:
        return f'<code class="tex">{html.escape(written)}</code>'
    return f'<div class="formula">{made}</div>' if displayed else str(made)


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
