"""Masks against masks, and measurements of outlines."""
