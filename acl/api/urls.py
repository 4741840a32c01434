"""``/v2/``: what is allowed."""

from __future__ import annotations

from django.urls import path

from acl.api import nodes, policy

urlpatterns = [
    path("policy/draft", policy.Draft.as_view(), name="api-draft"),
    path("policy/validate", policy.Validate.as_view(), name="api-validate"),
    path("policy/simulate", policy.Simulate.as_view(), name="api-simulate"),
    path("policy/diff", policy.Diff.as_view(), name="api-diff"),
    path("policy/versions", policy.Versions.as_view(), name="api-versions"),
    path("policy/versions/<int:number>", policy.OneVersion.as_view(), name="api-version"),
    path("policy/deployments", policy.Deployments.as_view(), name="api-deployments"),
    path("policy/deployments/<str:deployment_id>", policy.OneDeployment.as_view(), name="api-deployment"),
    path("policy/rollback", policy.Rollback.as_view(), name="api-rollback"),
    path("clusters", nodes.Clusters.as_view(), name="api-clusters"),
    path("nodes", nodes.Nodes.as_view(), name="api-nodes"),
]
