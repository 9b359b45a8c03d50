"""What sequencers write, read into blocks of base calls."""
