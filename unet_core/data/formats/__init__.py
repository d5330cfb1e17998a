"""The formats of pictures and masks, each in a module, which is imported where such a file is read."""
