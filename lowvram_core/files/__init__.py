"""Files in and out: which models there are, where they lie, how they are read; mesh files."""
