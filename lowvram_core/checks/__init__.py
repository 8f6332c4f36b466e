"""Is this input one that a stage can work on? Asked before a model is borrowed."""
