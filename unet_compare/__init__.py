"""Runs the two twins side by side, and shows what they compute."""
