"""Version of the package as it is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("raptorgraph")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"
