"""What other programs call: parts for MONAI Label and others, each imported in that program's own environment."""
