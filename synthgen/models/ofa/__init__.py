"""OFA (Wang et al., ICML 2022): captions of image regions. The region is given as text tokens."""
