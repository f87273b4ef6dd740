"""Read-only file systems: a folder, a tar archive, one image layer, several layers merged."""
