"""Pages of access control: draft, simulator, versions, deployments."""
