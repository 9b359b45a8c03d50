"""How base calls travel and are kept: block, read structure, log, feed and live view."""
