"""How millions of stamps are made: the stages, on Spark."""

from importlib.metadata import version

__version__ = version("dark-halo-scope")
