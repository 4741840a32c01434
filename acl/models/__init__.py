"""Models of access control: drafts, versions, deployments, and the clusters and nodes that enforce them."""

from acl.models.cluster import Cluster, Node
from acl.models.deployment import Deployment, Target
from acl.models.policy import PolicyDraft, PolicyVersion

__all__ = ["Cluster", "Deployment", "Node", "PolicyDraft", "PolicyVersion", "Target"]
