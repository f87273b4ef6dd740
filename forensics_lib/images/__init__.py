"""Container images as they travel: archives and layouts, manifests, configurations, layers and their history."""
