"""Flower apps, made from a site or a recipe."""
