"""Training of heads on features: works, and is tested, without Flower."""
