"""Access control: policies, versions, deployments, clusters and nodes, the simulator."""
