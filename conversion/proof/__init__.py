"""The proof that two networks, or trainings, are the same, and its certificate."""
