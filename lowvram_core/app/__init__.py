"""The roof: all stages in order, the stand-alone host, the command line."""
