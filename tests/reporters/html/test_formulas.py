"""Formulas as MathML, and as pictures."""

import re

import pytest

from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.results import Outcome
from nbrun.reporters.html.cleaning import clean
from nbrun.reporters.html.formulas import formula, text_with_formulas
from nbrun.reporters.html.pages import page
from nbrun.reporters.html.reporter import facts_of
from nbrun.reporters.run_log import RunRecord
from tests.reporters.streams import result
from tests.support.notebooks import markdown, notebook


def test_a_formula_becomes_mathml() -> None:
    assert formula("x^2", displayed=False, written="$x^2$") == "<math><msup><mi>x</mi><mn>2</mn></msup></math>"
    made = formula(r"\frac{a}{b}", displayed=True, written="")
    assert made == '<div class="formula"><math display="block"><mfrac><mi>a</mi><mi>b</mi></mfrac></math></div>'


def test_a_formula_that_cannot_be_converted_stays_as_its_source() -> None:
    assert formula(r"\nonsense<b>", displayed=False, written=r"$\nonsense<b>$") == (
        r'<code class="tex">$\nonsense&lt;b&gt;$</code>'
    )


@pytest.mark.parametrize("name", ["equation", "align", "gather", "equation*"])
def test_equations_have_no_numbers(name: str) -> None:
    made = formula(f"\\begin{{{name}}}a=b\\end{{{name}}}", displayed=True, written="")
    assert "<math" in made
    assert "(1)" not in made


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a $x$ < b", ["a <math><mi>x</mi></math> &lt; b"]),
        (r"$\displaystyle x$", ["<math>", "</math>"]),
        ("$$x$$ and \\[y\\] and \\(z\\)", ["<mi>x</mi></math></div> and ", "<mi>y</mi></math></div> and <math><mi>z"]),
        (r"\begin{cases}a\end{cases}", ['<div class="formula"><math display="block">']),
        (r"costs \$5 and \$6", [r"costs \$5 and \$6"]),
    ],
)
def test_the_text_around_formulas_stays(text: str, pieces: list[str]) -> None:
    made = text_with_formulas(text)
    for piece in pieces:
        assert piece in made


def test_cleaning_leaves_formulas_as_they_are() -> None:
    source = (
        r"\left(\sum_{i=0}^n \begin{pmatrix}1&2\\3&4\end{pmatrix} \overline{x} \sqrt[3]{y} \color{red}{z} \Big| \right)"
    )
    made = formula(source, displayed=True, written="")
    assert clean(made).replace("; ", ";") == made.replace("; ", ";")


MATRIX = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \le \sum_{i<n} \frac{a_i}{\sqrt{b}} \text{ if } \hat{x}"


@pytest.mark.parametrize("source", ["x", r"p \cdot q", MATRIX, r"\begin{align}a&=b\\c&=d\end{align}", r"\mathbb{R}^n"])
def test_a_formula_becomes_a_picture_that_is_as_large_as_its_text(source: str) -> None:
    made = formula(source, displayed=False, written=f"${source}$", mathml=False)
    found = re.fullmatch(
        r'<img alt="(.+?)" style="width: ([\d.]+)em; height: ([\d.]+)em; vertical-align: (-?[\d.]+)em" '
        r'src="data:image/svg\+xml;base64,[\w+/=]+">',
        made,
    )
    assert found is not None, made
    assert clean(made).count("data:image/svg+xml") == 1
    width, height, depth = map(float, found.groups()[1:])
    assert 0.3 < width < 20
    assert 0.3 < height < 5
    assert -2.5 < depth < 0.1


def test_a_picture_has_the_formula_as_its_text_and_in_headings() -> None:
    made = formula("x<y", displayed=True, written="$$x<y$$", mathml=False)
    assert made.startswith('<div class="formula"><img alt="$$x&lt;y$$"')
    facts = facts_of(RunRecord("a.ipynb"), result("a.ipynb", Outcome.PASSED), "hide", "show")
    text = notebook_text(notebook(markdown("# Sales of $x<y$")))
    assert page(text, {**facts, "index": ""}, mathml=False)[1] == "Sales of $x<y$"
