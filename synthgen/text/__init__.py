"""English names and captions: plurals, articles, hypernyms, agreement of a caption with a category."""
