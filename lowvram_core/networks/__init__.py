"""The networks, opened from checkpoints and not yet loaded, and what surrounds them: schedulers, VAE, attention."""
