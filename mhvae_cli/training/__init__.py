"""Folders of images in, a model folder out."""
