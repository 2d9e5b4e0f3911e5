"""The verbs of the command line: one module a verb, and the options that they share.

segment         masks, outlines and measurements of images
evaluate        masks against true ones
reconstruct     images through their latent codes and back
swap_style      images in the style of others
interpolate     images between two
warp            images with their object moved
sample          new images and masks
inspect         provenance of files, description of models
models          list, verify, fetch and carry models
doctor          what is installed, and whether devices compute what they should
train_vae       train a VAE
train_cddpm     train a cDDPM on a VAE
cross_validate  train and test on each fold

options               options that verbs share, and how a verb gets those of its settings
segmentation_options  options of segment
generation_options    options of the verbs that generate images
training_options      options of the verbs that train
"""
