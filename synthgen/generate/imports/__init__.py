"""Import of masks that were made elsewhere: as a new layer, or into an existing one."""
