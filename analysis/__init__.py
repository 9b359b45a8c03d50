"""What base calls mean: positions, genes, molecules and maps."""
