"""A pytest plug-in: a few fixed examples of each property test.

For a run that measures which branches the tests take: that needs no search for counterexamples, which is slow under
measurement, and must not hang on chance.
"""

from hypothesis import settings

settings.register_profile("few", max_examples=20, derandomize=True, database=None, deadline=None)
settings.load_profile("few")
