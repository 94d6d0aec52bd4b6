"""Adapters of published tools, and the versions that these are pinned to.

``run_adapter.py`` and the adapters are run by the Python of a tool's own environment, where raptorgraph is not
installed. They import nothing of it, and are written for Python 3.10 and newer.
"""
