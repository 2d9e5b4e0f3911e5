"""Masks against masks, and measurements of outlines.

metrics   Dice, IoU, Hausdorff distance, HD95 and ASSD of two masks
scoring   folders of masks against each other: pairs, means, paired comparison
biometry  area, axes, head circumference and cup-to-disc ratio of an outline
"""
