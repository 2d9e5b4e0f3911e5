"""Section 4 of the paper: conditional diffusion that refines the VAE's pictures."""
