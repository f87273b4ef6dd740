"""Docker: the data root of a daemon, with graph drivers or the containerd store."""
