"""The report of a study: a page, figures and tables for papers, JSON."""
