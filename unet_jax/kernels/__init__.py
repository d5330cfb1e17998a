"""How single operations are computed fast; what a rewrite makes has its own here."""
