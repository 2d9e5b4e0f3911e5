"""Comparison of masks, and measurements of outlines.

metrics   Dice, IoU, Hausdorff distance, HD95 and ASSD of two masks
scoring   comparison of two folders of masks: pairs, means, paired tests
biometry  area, axes, head circumference and cup-to-disc ratio of an outline
"""
