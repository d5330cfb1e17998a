"""Why two networks part at a node: it is computed anew with one thing after the other switched."""
