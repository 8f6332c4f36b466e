"""Pictures as values: converted and framed."""
