"""From a recipe to a run: builds what the rounds need and keeps what they give."""
