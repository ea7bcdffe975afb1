"""What `synthgen demo` runs on: seven free photographs, and boxes drawn for them by hand."""
