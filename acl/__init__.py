"""What is allowed: policies, versions, deployments, clusters and nodes, the simulator."""
