"""Files that other programs of the field open."""
