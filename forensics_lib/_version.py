"""The version of the library, recorded in every custody entry."""

__version__ = "0.1.0"
