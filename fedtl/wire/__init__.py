"""From values to Flower messages and back."""
