"""The frameworks that are compared, each behind one face."""
