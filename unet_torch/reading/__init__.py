"""Any torch module read as a graph."""
