"""Where a visual token looks, and what a region weighs on it."""
