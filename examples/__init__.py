"""Programs that show the whole at work; they are not installed."""
