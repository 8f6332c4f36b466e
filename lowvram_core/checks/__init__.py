"""Checks of inputs and results. Stages run them before they borrow a model."""
