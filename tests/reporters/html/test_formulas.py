"""Formulas as MathML."""

import pytest

from nbrun.reporters.html.cleaning import clean
from nbrun.reporters.html.formulas import formula, text_with_formulas


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
