"""The English of names and captions: words, plurals, articles, what is a kind of what. It knows no image."""
