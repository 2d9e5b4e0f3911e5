"""Section 3: the multi-headed VAE. Knows no files.

model       encoder, segmentation head and image head together
encoder     section 3.1: the ConvNet and the two heads for theta and z
decoder     sections 3.2 and 3.3: the segmentation head and the image head
warp        section 3.2, appendices B and C: affine and thin-plate-spline warps
latents     z, theta and pose of a batch
losses      section 3.4
fitting     warps fitted to training masks
pretrained  ImageNet weights for an encoder
contour     the exact outline of a warp
raster      a mask of any size from a warp
handles     a spline's outline moved by points on it
editing     latent codes and what the verbs do to them
density     appendix G: what new codes are drawn from
tta         the mirror images of test-time augmentation
"""
