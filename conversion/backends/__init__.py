"""The frameworks, each behind one face."""
