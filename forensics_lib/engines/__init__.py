"""Container engines: what each keeps on disk, read as images, containers, volumes, networks and logs."""
