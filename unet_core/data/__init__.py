"""Pictures, data folders, augmentation and batches. NumPy only."""
