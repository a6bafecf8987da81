"""What tokens look at: rows of attention, captured beside the model's own kernel, and the maps made of them."""
