"""Files: the list of models, finding, downloading and reading them; mesh and picture files."""
