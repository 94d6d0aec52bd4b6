"""The same examples in every run, however slow the machine."""

from hypothesis import settings

settings.register_profile("same", deadline=None, derandomize=True, max_examples=100, database=None)
settings.load_profile("same")
