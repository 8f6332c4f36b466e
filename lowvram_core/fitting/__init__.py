"""What fits on the device, computed before anything is loaded, and the fallbacks where it does not fit."""
