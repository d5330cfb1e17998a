"""A graph as one readable file of code, a class for each block that comes again."""
