"""Read-only bytes: files, slices of them, and what is inside compressed ones."""
