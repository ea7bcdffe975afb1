"""English names and captions: plurals, articles, hypernyms, left and right, agreement of a caption with a category."""
