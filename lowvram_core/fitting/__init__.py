"""What fits on the device: computed before anything is loaded, and what is changed where it does not."""
