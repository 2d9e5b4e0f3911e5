"""Section 4: the cDDPM, a conditional diffusion model that sharpens the VAE's image. No file access.

sde       the forward process, equations 13 and 14
score     the score network and its training loss, equation 8
frames    the black around a scan's field of view
texture   how strong an image's detail is, and where
spectrum  the score of a Gaussian field, from which the network starts
unet      the temporal U-Net
solvers   equation 15, by Euler-Maruyama and faster methods
noise     one seeded path of noise per image
density   appendix G: the distribution that new latent codes are drawn from
refiner   the complete model: the VAE's images in, sharp images out
"""
