"""The application without ComfyUI: the pipeline of all stages, the stand-alone host, the command line."""
