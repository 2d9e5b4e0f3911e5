"""The verbs of the command line, one module per verb, and the options they share.

segment         masks, outlines and measurements of images
evaluate        predicted masks against ground truth
reconstruct     images from their latent codes
swap_style      images in the style of others
interpolate     images between two images
warp            images with the object moved or deformed
sample          synthetic images and masks
status          whether a folder of results is whole
inspect         provenance of files, description of models
models          list, verify, download and transfer models
doctor          system configuration and a self-test of the devices
train_vae       train a VAE
train_cddpm     train a cDDPM on a VAE
cross_validate  train and test on each fold

options               options shared by verbs, and the decorator that adds them
segmentation_options  options of segment
generation_options    options of the verbs that generate images
training_options      options and settings of the verbs that train
"""
