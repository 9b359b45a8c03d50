"""The instrument and the tissue, without hardware."""
