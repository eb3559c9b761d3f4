"""What the property tests share: any JSON, and a small number of examples."""

from hypothesis import settings
from hypothesis import strategies as st

QUICK = settings(max_examples=min(40, settings().max_examples))
"""For examples that take long to make."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=2)
