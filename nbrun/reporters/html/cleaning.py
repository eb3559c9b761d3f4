"""Remove active content from HTML: scripts, loads, navigation; uses nh3 and tinycss2.

This is the only module that imports nh3 and tinycss2. It processes the finished body of a page after nbconvert, when
cells, outputs, names and metadata are one text. nh3 parses it as a browser does, and writes only the elements and
attributes of the lists below. A URL must be a data URL or a place in the page, except in a link. tinycss2 removes
styles that would load something.

The lists contain what libraries for tables, plots and estimators write into HTML and SVG. A link stays, because it
needs a click.
"""

import html
import re

import nh3
import tinycss2


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HTML_TAGS = _words(
    """
    a abbr address article aside audio b bdi bdo blockquote br button caption center cite code col colgroup data
    dd del details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup hr i img input
    ins kbd label legend li main mark meter nav ol p picture pre progress q rp rt ruby s samp section small source
    span strike strong style sub summary sup table tbody td tfoot th thead time tr tt u ul var video wbr
    """
)
_SVG_TAGS = _words(
    """
    circle clipPath defs desc ellipse feBlend feColorMatrix feComponentTransfer feComposite feDropShadow feFlood
    feFuncA feFuncB feFuncG feFuncR feGaussianBlur feMerge feMergeNode feOffset filter g image line linearGradient
    marker mask path pattern polygon polyline radialGradient rect stop svg switch symbol text textPath title tspan
    use view
    """
)
_MATH_TAGS = _words(
    """
    math mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle msub
    msubsup msup mtable mtd mtext mtr munder munderover semantics
    """
)
_DROPPED_WITH_CONTENT = _words(
    """
    annotation annotation-xml applet embed iframe noembed noframes noscript object script template
    """
)
_HTML_ATTRIBUTES = _words(
    """
    align alt bgcolor border cellpadding cellspacing checked class color colspan controls datetime dir disabled
    face for headers height high id label lang loop low max min muted open optimum role rowspan scope size span
    start style summary tabindex title type valign value width
    """
)
_SVG_ATTRIBUTES = _words(
    """
    alignment-baseline amplitude baseline-shift clip-path clip-rule clipPathUnits color-interpolation
    color-interpolation-filters cx cy d direction display dominant-baseline dx dy edgeMode exponent fill
    fill-opacity fill-rule filter filterUnits flood-color flood-opacity font-family font-size font-size-adjust
    font-stretch font-style font-variant font-weight fx fy gradientTransform gradientUnits href image-rendering in
    in2 intercept k1 k2 k3 k4 kerning lengthAdjust letter-spacing marker-end marker-mid marker-start markerHeight
    markerUnits markerWidth mask maskContentUnits maskUnits mode offset opacity operator order orient overflow
    paint-order path pathLength patternContentUnits patternTransform patternUnits points preserveAspectRatio
    primitiveUnits r refX refY result rotate rx ry shape-rendering slope spreadMethod startOffset stdDeviation
    stop-color stop-opacity stroke stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin
    stroke-miterlimit stroke-opacity stroke-width tableValues text-anchor text-decoration text-rendering
    textLength transform transform-origin values vector-effect version viewBox visibility word-spacing
    writing-mode x x1 x2 xlink:href xml:space xmlns xmlns:xlink y y1 y2
    """
)
_MATH_ATTRIBUTES = _words(
    """
    accent accentunder columnalign columnspan depth displaystyle fence linethickness lspace mathvariant maxsize
    minsize movablelimits rowalign rspace scriptlevel separator stretchy symmetric voffset
    """
)
_LINKS = frozenset({"a"})
_EMBEDDED = {"img": "image", "image": "image", "audio": "audio", "video": "video", "source": ""}
"""Elements that show data, and their kind. A source belongs to audio, video or a picture."""
_MEDIA = re.compile(r"data:(image|audio|video)/[\w.+-]+[;,]", re.IGNORECASE)
_INPUTS = frozenset({"checkbox", "radio"})

_LOADS = re.compile(r"url|\\|@|image|src|cross-fade", re.IGNORECASE)
"""Texts without which a style cannot load anything: function or rule names, and escapes that could hide them."""
_RULES = _words(
    """
    container counter-style font-face keyframes layer media page property scope starting-style supports
    -webkit-keyframes
    """
)
_FUNCTIONS = frozenset({"url", "src", "image", "image-set", "-webkit-image-set", "cross-fade", "-webkit-cross-fade"})
_INDIRECT = frozenset({"attr", "env", "if", "src", "var"})
_CSS_DATA = re.compile(r"\s*(#|data:(image|font|application/(x-)?font)[\w.+-]*[/;,])", re.IGNORECASE)
_STYLE = re.compile(r"""(<style\b(?:[^">]|"[^"]*")*>)(.*?)(</style>)""", re.DOTALL)
_PRE = re.compile(r"""(<pre\b(?:[^">]|"[^"]*")*>)\n""")
_TAG = re.compile(r"\\?<")
_PASSES = 4


def clean(text: str) -> str:
    """Return `text` without anything that runs, loads or navigates without a click.

    The result is parsed again until it no longer changes, so that a browser's parser sees the same as was checked.
    """
    for _ in range(_PASSES):
        cleaned = _STYLE.sub(_cleaned_style, _CLEANER.clean(text))
        cleaned = _PRE.sub(r"\1\n\n", cleaned)  # a parser removes the first line break in it
        if cleaned == text:
            return cleaned
        text = cleaned
    return f"<pre>{html.escape(text)}</pre>"


def _cleaned_style(found: re.Match[str]) -> str:
    """Return a ``style`` element whose rules load nothing. Inside SVG its text uses character references."""
    start, text, end = found.groups()
    while (plain := html.unescape(text)) != text:
        text = plain
    return f"{start}{clean_css(text)}{end}"


def clean_css(text: str) -> str:
    """Return a style sheet, or a list of declarations, that loads nothing."""
    if not _LOADS.search(text) and "<" not in text:
        return text
    nodes = tinycss2.parse_component_value_list(text, skip_comments=True)
    return _TAG.sub(r"\\3c ", tinycss2.serialize(_without_loads(nodes)))


def _without_loads(nodes: list[tinycss2.ast.Node]) -> list[tinycss2.ast.Node]:
    """Return tokens without rules that load, and without URLs other than data URLs and places in the page."""
    kept, skipping = [], False
    for node in nodes:
        if skipping:  # the rest of a rule, up to its semicolon or the end of its block
            skipping = not (node.type == "{} block" or node == ";")
            continue
        if node.type == "at-keyword" and node.lower_value not in _RULES:
            skipping = True
            continue
        if node.type == "error" or (node.type == "url" and not _CSS_DATA.match(node.value)):
            continue
        if node.type == "function":
            if node.lower_name in _FUNCTIONS and not _is_inside(node):
                continue
            node.arguments = _without_loads(node.arguments)
        elif node.type in ("{} block", "() block", "[] block"):
            node.content = _without_loads(node.content)
        kept.append(node)
    return kept


def _is_inside(function: tinycss2.ast.FunctionBlock) -> bool:
    """Return whether a loading function refers only to data URLs or places in the page."""
    for node in function.arguments:
        if node.type in ("string", "url") and not _CSS_DATA.match(node.value):
            return False
        if node.type == "function" and (node.lower_name in _INDIRECT or not _is_inside(node)):
            return False
    return True


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Return the value of an allowed attribute, or None to remove it."""
    if name in ("href", "xlink:href", "src", "poster"):
        return _url("img" if name == "poster" else tag, value)
    if name == "type" and tag == "input":
        return value if value.lower() in _INPUTS else "checkbox"
    if _LOADS.search(value) and (name == "style" or name in _SVG_ATTRIBUTES):
        return clean_css(value)
    return value


def _url(tag: str, value: str) -> str | None:
    if tag in _LINKS:
        return None if value.lstrip().lower().startswith("data:") else value
    if tag in _EMBEDDED:
        kind = _MEDIA.match(value.strip())
        return value if kind and kind[1].lower().startswith(_EMBEDDED[tag]) else None
    return value if value.strip().startswith("#") else None


_CLEANER = nh3.Cleaner(
    tags=set(_HTML_TAGS | _SVG_TAGS | _MATH_TAGS),
    clean_content_tags=set(_DROPPED_WITH_CONTENT),
    attributes={
        "*": set(_HTML_ATTRIBUTES | _SVG_ATTRIBUTES | _MATH_ATTRIBUTES),
        "a": {"href"},
        "img": {"src"},
        "audio": {"src"},
        "video": {"src", "poster"},
        "source": {"src"},
        "mo": {"form", "largeop"},
        "input": {"name"},  # for radio buttons; elsewhere a name could hide elements from scripts
    },
    attribute_filter=_attribute,
    url_schemes={"http", "https", "mailto", "data"},
    generic_attribute_prefixes={"data-", "aria-"},
    link_rel="noopener noreferrer",
    strip_comments=True,
)
