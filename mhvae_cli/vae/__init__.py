"""Section 3: the multi-headed VAE. Reads and writes no files.

model       encoder, segmentation head and image head together
encoder     section 3.1: the ConvNet and the two heads for theta and z
decoder     sections 3.2 and 3.3: the segmentation head and the image head
boundary    an outline moved to the boundary that the image shows
newton      derivatives of maps, and points traced back through a warp
warp        section 3.2, appendices B and C: affine and thin-plate-spline warps
latents     latent codes of a batch: z, theta and pose
tones       an image as two coarse layers, the object and the ground
losses      section 3.4
fitting     warps fitted to training masks, and the style code's linear part to their images
pretrained  ImageNet weights for an encoder
outline     the object of a position code, as a mask and as an outline
contour     the boundary of a level function, as polygons
raster      the interior of a level function, as a mask
handles     editing a spline's outline by its handles
correspondence  which point of one image shows the same part of the object as a point of another
editing     latent codes and the edits that the verbs make to them
tta         test-time augmentation: theta averaged over mirror images
"""
