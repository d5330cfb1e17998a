"""The release that this is."""

VERSION = "0.7.0"
"""As in pyproject.toml (a test holds the two together); an installed package may be older than the code that runs."""
