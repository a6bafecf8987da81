"""One runner for whatever is done with every example of a set: kept line by line, gone on with, spread over machines."""
