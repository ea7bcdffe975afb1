"""OFA: an image, a box in words, and text that describes what is in it; Wang et al., ICML 2022."""
