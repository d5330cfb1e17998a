"""Are two frameworks, ports or recipes the same in training: many runs, and what statistics say of them."""
