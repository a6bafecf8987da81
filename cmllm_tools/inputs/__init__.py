"""What the user gives: images, regions drawn on them, and marks drawn into them."""
