"""What `synthgen demo` runs on: seven photographs out of scikit-image's wheel, and boxes drawn for them by hand."""
