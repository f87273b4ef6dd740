"""containerd: the store that Docker, Kubernetes and others keep images and containers' files in."""
