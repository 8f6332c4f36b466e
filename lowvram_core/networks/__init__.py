"""The networks, opened from checkpoints but not loaded, with their schedulers, VAE settings and attention kernels."""
