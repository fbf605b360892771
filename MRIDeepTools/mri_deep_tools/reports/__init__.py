"""Reports from what lies on disk: pages made again from a sidecar, and pages that compare two results."""
