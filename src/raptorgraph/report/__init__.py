"""The report of a run: words, tables and one HTML page."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_findings": ["Run"],
        "_record": ["source_of_file"],
        "_short": ["in_short"],
        "_write": ["findings_of", "page_of", "tables_of", "warnings_without_tests"],
    },
)
