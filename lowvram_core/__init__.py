"""One picture in, a textured mesh out, on a small graphics card. Knows no ComfyUI."""
