"""Pages about what is allowed: draft, simulator, versions, deployments."""
