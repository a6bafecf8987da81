"""Other ways of referring to a region, for comparison with steering."""
